package integration_test

import (
	"os"

	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

// insideNetNS runs f on a thread that is in another network namespace; the
// processes it starts are there too. The thread ends with it.
func insideNetNS(ns *os.File, f func()) error {
	return thread.Spend(func() error {
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		return err
	})
}

// linkUp sets an interface up.
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
