package criu

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread of its own that is thrown away afterwards, so
// f may change the thread's namespaces. Processes that f starts inherit them.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- f()
			return // ends the thread, because it is still locked
		}
		// The first thread cannot end, and its namespaces are what /proc
		// shows as the process's. Hold it while another one does the work.
		defer runtime.UnlockOSThread()
		result <- onThread(f)
	}()
	return <-result
}

// inPrivateMounts runs f on a thread with a mount namespace of its own, from
// which no mount leaks to the host and none outlives f and the processes
// that it started.
func inPrivateMounts(f func() error) error {
	return onThread(func() error {
		// A mount namespace needs a root and working directory that no
		// other thread shares (unshare(2), CLONE_NEWNS implies CLONE_FS).
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make the mounts private: %w", err)
		}
		return f()
	})
}
