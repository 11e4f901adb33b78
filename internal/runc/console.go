package runc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

// ConsoleIndex is the number of the pty that is mounted on a container's
// /dev/console, -1 when none is or it has ended.
func ConsoleIndex(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return -1, err
	}
	index := -1
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line) // the last mount on a path is the one seen
		if len(f) > 4 && f[4] == "/dev/console" {
			n, err := strconv.Atoi(strings.TrimPrefix(f[3], "/"))
			if err != nil {
				n = -1 // "/0//deleted"
			}
			index = n
		}
	}
	return index, nil
}

// NewConsole makes a pty in the devpts of a container whose tasks are stopped,
// mounts its inner end on /dev/console and returns the outer one. Services have
// mount namespaces of their own, copied when the console was another: those that
// pids are in get it in its place. One that has ended CRIU would dump and not
// restore. Those that could not be given it are in the error then, beside the pty.
func NewConsole(pid int, pids []int, ids *IDRange) (*os.File, error) {
	spaces, err := consoleSpaces(pid, pids)
	defer func() {
		for _, ns := range spaces {
			ns.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	fd := -1
	err = thread.Spend(func() (err error) {
		fd, err = consoleInside(spaces, ids)
		return err
	})
	if fd < 0 {
		return nil, err
	}
	if nerr := unix.SetNonblock(fd, true); nerr != nil {
		return nil, errors.Join(err, nerr, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "console"), err
}

// consoleSpaces opens the mount namespace of pid and, after it, others of pids that
// have its console. Of pids, those in this process's own pid namespace
// (CRIU's) are passed over. The files are the caller's to close, with an error too.
func consoleSpaces(pid int, pids []int) ([]*os.File, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	first, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	spaces := []*os.File{first}
	seen := map[string]bool{namespaceOf(pid, "mnt"): true}
	device := consoleDevice(pid)
	for _, p := range pids {
		id, outer := namespaceOf(p, "mnt"), namespaceOf(p, "pid")
		if id == "" || seen[id] || outer == "" || outer == own || device == "" || consoleDevice(p) != device {
			continue
		}
		seen[id] = true
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", p))
		if err != nil {
			return spaces, err
		}
		spaces = append(spaces, ns)
	}
	return spaces, nil
}

// namespaceOf names a namespace of a process; "" when that has ended.
func namespaceOf(pid int, kind string) string {
	id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
	if err != nil {
		return ""
	}
	return id
}

// consoleDevice is the file system that a process has its /dev/console from, as
// MAJOR:MINOR; "" when nothing is mounted there.
func consoleDevice(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return ""
	}
	return deviceAt(string(b), "/dev/console")
}

// deviceAt reads a mountinfo, proc_pid_mountinfo(5).
func deviceAt(mountinfo, point string) string {
	device := ""
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line) // the last mount on a path is the one seen
		if len(f) > 4 && f[4] == point {
			device = f[2]
		}
	}
	return device
}

// consoleInside makes the pty in the first of the mount namespaces and mounts it in
// all. master is -1 unless it is on the first one's /dev/console.
func consoleInside(spaces []*os.File, ids *IDRange) (master int, err error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(int(spaces[0].Fd()), unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("enter the mount namespace: %w", err)
	}
	pts, err := openDevpts()
	if err != nil {
		return -1, err
	}
	defer unix.Close(pts)
	master, err = unix.Openat(pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open ptmx: %w", err)
	}
	trees, err := slaves(pts, master, len(spaces), ids)
	defer func() {
		for _, tree := range trees {
			unix.Close(tree)
		}
	}()
	if err == nil {
		err = putConsole(trees[0])
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(master))
	}
	var errs []error
	for i, ns := range spaces[1:] {
		err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
		if err == nil {
			err = putConsole(trees[i+1])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("in the mount namespace of a service: %w", err))
		}
	}
	return master, errors.Join(errs...)
}

// openDevpts opens /dev/pts, which the container may have covered with anything.
func openDevpts() (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/dev/pts", &how)
	if err != nil {
		return -1, fmt.Errorf("open /dev/pts: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, errors.Join(errors.New("/dev/pts is not a devpts"), err, unix.Close(fd))
	}
	return fd, nil
}

// slaves makes the inner end of a pty the container's and returns so many mounts of
// it that are nowhere yet, with an error too.
func slaves(pts, master, count int, ids *IDRange) (trees []int, err error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock the pty: %w", err)
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("number of the pty: %w", err)
	}
	name := strconv.FormatUint(uint64(n), 10)
	if ids != nil { // made by the host's root, who is nobody inside
		if err := unix.Fchownat(pts, name, int(ids.Base), int(ids.Base)+ttyGroup, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, fmt.Errorf("give the pty to the container: %w", err)
		}
	}
	for range count {
		tree, err := unix.OpenTree(pts, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return trees, fmt.Errorf("open the pty: %w", err)
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

// putConsole mounts a pty on /dev/console of the mount namespace that the thread is in.
func putConsole(tree int) error {
	if err := unix.Unmount("/dev/console", unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount the old console: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/dev/console", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the console: %w", err)
	}
	return nil
}

// ttyGroup is Debian's gid of tty, as in the devpts mount options.
const ttyGroup = 5
