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
	ours, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if os.SameFile(theirs, ours) {
		return nil, errors.Join(fmt.Errorf("%w: %d", ErrHostNamespace, pid), f.Close())
	}
	return f, nil
}

// enter runs do on a thread inside the network namespace ns. It is the only
// place that switches namespaces. do must not start goroutines that rely on the
// namespace. A thread that cannot be switched back stays locked to its
// goroutine, so that the runtime ends the thread with it instead of giving it
// to others (see runtime.LockOSThread).
func enter(ns *os.File, do func() error) error {
	result := make(chan error, 1)
	go func() { result <- enterLocked(ns, do) }()
	return <-result
}

// enterLocked returns with its goroutine locked to its thread when that is left in
// the wrong namespace. The goroutine is to end then.
func enterLocked(ns *os.File, do func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
