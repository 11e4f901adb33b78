package template

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inRoot confines a lookup to the tree below the directory it starts from, as
// if that were "/": absolute symbolic links and ".." end there.
const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// here refuses symbolic links and mount points altogether.
const here = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV

const typeMask = unix.S_IFMT

// openTop opens the top directory of a tree.
func openTop(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openAt opens name below dir with the resolve flags.
func openAt(dir *os.File, name string, flags int, mode uint32, resolve uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: resolve}
	// EAGAIN: a rename anywhere on the system made ".." doubtful (openat2(2)).
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)) && tries < 128 {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// handleAt refers to name itself, whatever it is, without opening it.
func handleAt(dir *os.File, name string) (*os.File, error) {
	return openAt(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0, here)
}

// openParent opens the directory that the last element of a clean relative name
// lies in, following links inside the root, and makes what is missing of it.
func openParent(top *os.File, name string) (dir *os.File, base string, err error) {
	up, base := path.Split(name)
	dir, err = openDir(top, path.Clean("./"+up))
	return dir, base, err
}

func openDir(top *os.File, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	dir, err := openAt(top, name, flags, 0, inRoot)
	if !errors.Is(err, unix.ENOENT) || name == "." {
		return dir, err
	}
	up, base, err := openParent(top, name)
	if err != nil {
		return nil, err
	}
	err = unix.Mkdirat(int(up.Fd()), base, 0o755)
	if err = errors.Join(err, up.Close()); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: name, Err: err} // EEXIST: a dangling link
	}
	return openAt(top, name, flags, 0, inRoot)
}

func lstatAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

func readlinkAt(dir *os.File, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, b)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(b[:n]), nil
}

// attributes are what is set on an inode after it was made.
type attributes struct {
	uid, gid     int
	mode         uint32 // permissions, set-id and sticky bits
	atime, mtime unix.Timespec
	xattrs       map[string][]byte
}

func attributesOf(st unix.Stat_t, xattrs map[string][]byte) attributes {
	return attributes{
		uid: int(st.Uid), gid: int(st.Gid), mode: st.Mode &^ typeMask,
		atime: st.Atim, mtime: st.Mtim, xattrs: xattrs,
	}
}

// apply sets the attributes. The order is forced: a change of owner clears
// set-id bits and capabilities (chown(2)), everything changes times.
func (a attributes) apply(f *os.File, symlink bool) error {
	fd := int(f.Fd())
	if err := unix.Fchownat(fd, "", a.uid, a.gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("change owner to %d:%d: %w", a.uid, a.gid, err)
	}
	if !symlink {
		// Through /proc because f may be an O_PATH descriptor, which fchmod(2)
		// refuses.
		if err := unix.Chmod(procPath(f), a.mode); err != nil {
			return fmt.Errorf("change mode to %#o: %w", a.mode, err)
		}
	}
	for name, value := range a.xattrs {
		if err := unix.Setxattr(procPath(f), name, value, 0); err != nil {
			return fmt.Errorf("set attribute %.80q: %w", name, err)
		}
	}
	times := []unix.Timespec{a.atime, a.mtime}
	if err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// procPath leads to what f refers to, even when that is a symbolic link: the
// kernel follows only the link that /proc shows.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// carried says which extended attributes belong to a tree and not to the host
// or the file system it lies on. They are copied and count in the digest.
func carried(name string) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."):
		return false
	case strings.HasPrefix(name, "user."), strings.HasPrefix(name, "trusted."):
		return true
	}
	return name == "security.capability" ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// readXattrs returns the carried attributes.
func readXattrs(f *os.File) (map[string][]byte, error) {
	list, err := readGrowing(func(b []byte) (int, error) { return unix.Listxattr(procPath(f), b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	var attrs map[string][]byte
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !carried(name) {
			continue
		}
		value, err := readGrowing(func(b []byte) (int, error) { return unix.Getxattr(procPath(f), name, b) })
		if err != nil {
			return nil, fmt.Errorf("read attribute %.80q: %w", name, err)
		}
		if attrs == nil {
			attrs = map[string][]byte{}
		}
		attrs[name] = value
	}
	return attrs, nil
}

// readGrowing calls read with a buffer that is large enough: the kernel's bound
// for names and for a value is 64 KiB (xattr(7)).
func readGrowing(read func([]byte) (int, error)) ([]byte, error) {
	for _, size := range []int{256, 64 << 10} {
		b := make([]byte, size)
		n, err := read(b)
		if errors.Is(err, unix.ERANGE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return slices.Clip(b[:n]), nil
	}
	return nil, unix.E2BIG
}
