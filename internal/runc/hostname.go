package runc

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// SetHostname changes the host name in the UTS namespace of a process, without
// running anything inside: on a thread that enters the namespace for a moment. A
// namespace that is this process's own is refused.
func SetHostname(pid int, name string) error {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
	if err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	defer theirs.Close()
	done := make(chan error, 1)
	go func() {
		// A thread that can't go back is not given to others: it ends with this.
		runtime.LockOSThread()
		back, err := inUTS(theirs, func() error { return unix.Sethostname([]byte(name)) })
		if back {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return fmt.Errorf("set the host name: process %d: %w", pid, err)
	}
	return nil
}

// inUTS runs do on this thread in another UTS namespace, and says whether the
// thread is back in its own.
func inUTS(ns *os.File, do func() error) (back bool, err error) {
	home, err := os.Open("/proc/thread-self/ns/uts")
	if err != nil {
		return true, err
	}
	defer home.Close()
	if same, err := sameNamespace(ns, home); err != nil || same {
		return true, errors.Join(err, errors.New("it has no UTS namespace of its own"))
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
		return true, fmt.Errorf("enter the UTS namespace: %w", err)
	}
	err = do()
	if out := unix.Setns(int(home.Fd()), unix.CLONE_NEWUTS); out != nil {
		return false, errors.Join(err, fmt.Errorf("leave the UTS namespace: %w", out))
	}
	return true, err
}

func sameNamespace(a, b *os.File) (bool, error) {
	fa, err := a.Stat()
	if err != nil {
		return false, err
	}
	fb, err := b.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(fa, fb), nil
}
