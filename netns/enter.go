package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// openOf opens the network namespace of a process, and refuses the caller's own.
func openOf(pid int) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("%w: %d", ErrNoProcess, pid)
	}
	if err != nil {
		return nil, err
	}
	theirs, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	ours, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if os.SameFile(theirs, ours) {
		return nil, errors.Join(fmt.Errorf("%w: %d", ErrHostNamespace, pid), f.Close())
	}
	return f, nil
}

// enter runs do on a thread inside the network namespace ns. do must not start
// goroutines that rely on the namespace.
func enter(ns *os.File, do func() error) error {
	return elsewhere(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return nil
	}, do)
}

// inNew runs do on a thread inside a new network namespace, which nobody else
// sees and which is gone afterwards.
func inNew(do func() error) error {
	return elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return nil
	}, do)
}

// elsewhere runs do on a thread whose namespace move changes. It is the only place
// of this package that switches namespaces. The thread goes on afterwards: the end of a
// thread would kill the children that were started on it to die with their parent
// (PR_SET_PDEATHSIG). Only one that cannot be switched back stays locked to its
// goroutine, so that the runtime ends it instead of giving it to others (see
// runtime.LockOSThread).
func elsewhere(move, do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and /proc/self shows its namespaces.
			// It is held while another one does the work.
			defer runtime.UnlockOSThread()
			result <- elsewhere(move, do)
			return
		}
		back, err := switchLocked(move, do)
		if back {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// switchLocked says whether the thread is back where it was.
func switchLocked(move, do func() error) (back bool, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return true, err
	}
	defer home.Close()
	if err := move(); err != nil {
		return true, err
	}
	err = do()
	if stuck := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); stuck != nil {
		return false, errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", stuck))
	}
	return true, err
}
