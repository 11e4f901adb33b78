package runc

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// MountRoot mounts the directory volume on target, id-mapped to ids when given
// (mount_setattr(2), Linux 5.12; btrfs since 5.15). Ids on disk stay unshifted.
func MountRoot(volume, target string, ids *IDRange) error {
	if err := os.MkdirAll(target, 0o711); err != nil {
		return err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, volume, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open the root volume %s: %w", volume, err)
	}
	defer unix.Close(fd)
	if err := mapMount(fd, ids); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the root volume: %w", err)
	}
	return nil
}

func mapMount(fd int, ids *IDRange) error {
	attr := unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if ids != nil {
		ns, err := userNamespace(*ids)
		if err != nil {
			return fmt.Errorf("user namespace for the root volume: %w", err)
		}
		defer ns.Close()
		attr.Attr_set = unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(ns.Fd())
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("id-map the root volume (needs Linux 5.12, on btrfs 5.15): %w", err)
	}
	return nil
}

// userNamespace returns a descriptor of a user namespace with that mapping. It
// belongs to a child that is stopped by ptrace before its first instruction and
// never runs.
func userNamespace(ids IDRange) (*os.File, error) {
	runtime.LockOSThread() // the tracer is a thread, not a process
	defer runtime.UnlockOSThread()
	m := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(ids.Base), Size: int(ids.Size)}}
	//nolint:noctx // never runs, killed below
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: m, GidMappings: m, Ptrace: true, Pdeathsig: unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
	_ = cmd.Process.Kill() // it is our own stopped child: it can't be gone
	_ = cmd.Wait()         // it was killed, that is its result
	return f, err
}
