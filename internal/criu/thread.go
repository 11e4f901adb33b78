package criu

import (
	"fmt"

	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

// inPrivateMounts runs f on a thread with a mount namespace of its own, from
// which no mount leaks to the host and none outlives f and the processes
// that it started.
func inPrivateMounts(f func() error) error {
	return thread.Spend(func() error {
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
