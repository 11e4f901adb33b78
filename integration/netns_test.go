package integration_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// newNetNS makes a network namespace with its loopback up, for a second host.
// It lives as long as the descriptor and the processes in it.
func newNetNS() (ns *os.File, err error) {
	onOwnThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); err != nil {
			return
		}
		err = linkUp("lo")
	})
	return ns, err
}

// setNetNS moves the calling thread.
func setNetNS(ns *os.File) error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }

// onOwnThread runs f on a thread that ends with it, so that f may change the
// thread's namespaces.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // without unlock: the thread is not used again
		f()
	}()
	<-done
}

// dial opens a TCP connection from the host's network. It stays usable
// everywhere: a socket belongs to the namespace it was made in.
func (r *rig) dial(addr string) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 2 * time.Second}
	if r.netns == nil {
		return d.Dial("tcp", addr)
	}
	onOwnThread(func() {
		if err = setNetNS(r.netns); err == nil {
			conn, err = d.Dial("tcp", addr)
		}
	})
	return conn, err
}

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
