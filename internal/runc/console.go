package runc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

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
// mounts its inner end on /dev/console and returns the outer one.
func NewConsole(pid int, ids *IDRange) (*os.File, error) {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		// The thread has changed its namespace: it ends with this goroutine.
		runtime.LockOSThread()
		fd, err := consoleInside(int(ns.Fd()), ids)
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, r.err
	}
	if err := unix.SetNonblock(r.fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(r.fd))
	}
	return os.NewFile(uintptr(r.fd), "console"), nil
}

func consoleInside(ns int, ids *IDRange) (master int, err error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
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
	if err := mountConsole(pts, master, ids); err != nil {
		return -1, errors.Join(err, unix.Close(master))
	}
	return master, nil
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

func mountConsole(pts, master int, ids *IDRange) error {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the pty: %w", err)
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("number of the pty: %w", err)
	}
	name := strconv.FormatUint(uint64(n), 10)
	if ids != nil { // made by the host's root, who is nobody inside
		if err := unix.Fchownat(pts, name, int(ids.Base), int(ids.Base)+ttyGroup, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give the pty to the container: %w", err)
		}
	}
	tree, err := unix.OpenTree(pts, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open the pty: %w", err)
	}
	defer unix.Close(tree)
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
