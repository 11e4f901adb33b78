package container

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/ctctl/ctctl/internal/runc"
	"golang.org/x/sys/unix"
)

// masters are the outer ends of the ptys that CRIU restored without anybody
// inside having them: the console's, and those of exec sessions whose terminal
// something inside still has open.
type masters struct {
	files   []*os.File
	console *os.File
}

func (m *masters) add(files []*os.File) error {
	if len(files) == 0 {
		return errors.New("no terminal came with the notification")
	}
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	m.files = append(m.files, os.NewFile(uintptr(fd), "pty"))
	return nil
}

// complete finds the console among the masters while the tasks are still
// stopped. When no process had it open CRIU restored none, and what is mounted on
// /dev/console is dead: then it is made anew.
func (m *masters) complete(pid int, pids []int, ids *runc.IDRange, log *slog.Logger) error {
	index, err := runc.ConsoleIndex(pid)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	for _, f := range m.files {
		n, err := ptyIndex(f)
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		if n == index {
			m.console = f
			return nil
		}
	}
	m.console, err = runc.NewConsole(pid, pids, ids)
	switch { // what the container did to its /dev is no reason not to restore it
	case m.console == nil:
		log.Warn("no console", "err", err)
	case err != nil:
		log.Warn("not every service has the console", "err", err)
	}
	return nil
}

// ptyIndex is N of the pty's /dev/pts/N.
func ptyIndex(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var ierr error
	err = raw.Control(func(fd uintptr) {
		var u uint32
		u, ierr = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
		n = int(u)
	})
	return n, errors.Join(err, ierr)
}

// take hands out the console's master and closes the others: their sessions were
// hung up when the container ended.
func (m *masters) take() *os.File {
	c := m.console
	m.console = nil
	for _, f := range m.files {
		if f != c {
			f.Close()
		}
	}
	m.files = nil
	return c
}

func (m *masters) close() {
	if c := m.take(); c != nil {
		c.Close()
	}
}
