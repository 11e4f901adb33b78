package runc

import (
	"fmt"
	"os"

	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

// netSysctls is what an administrator inside may set: all values there are of the
// container's own network namespace, or not to be seen from it.
const netSysctls = "/proc/sys/net"

// allowNetSysctls mounts netSysctls once more over itself, without the read-only flag
// that /proc/sys has, in the mount namespace of an init that waits.
func allowNetSysctls(pid int) error {
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return err
	}
	defer space.Close()
	if err := thread.Spend(func() error { return allowThere(space) }); err != nil {
		return fmt.Errorf("make %s writable: %w", netSysctls, err)
	}
	return nil
}

func allowThere(space *os.File) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // else no other mount namespace
		return err
	}
	if err := unix.Setns(int(space.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, netSysctls, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: netSysctls, Err: err}
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return &os.PathError{Op: "mount_setattr", Path: netSysctls, Err: err}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, netSysctls, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "move_mount", Path: netSysctls, Err: err}
	}
	return nil
}
