package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// becomeOwner changes the file system ids of this thread, which must not be used
// again afterwards: it is for thread.Spend.
func becomeOwner(owner int) error {
	// Dropping the user id 0 drops the effective capabilities for files
	// (capabilities(7)); they are raised again from the permitted ones.
	if err := errors.Join(unix.Setfsgid(owner), unix.Setfsuid(owner)); err != nil {
		return err
	}
	if uid, err := unix.SetfsuidRetUid(-1); uid != owner {
		return fmt.Errorf("setfsuid %d: %w", owner, errors.Join(unix.EPERM, err))
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	return unix.Capset(&head, &data[0])
}

// copyBetween finds out what goes where.
func copyBetween(ctx context.Context, src, dst *end) error {
	from, err := src.open(src.Path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return src.pathError("stat", src.Path, err)
	}
	if handled, err := stream(ctx, from, st, src, dst); handled {
		return err
	}
	_, base := split(src.Path)
	into, name, err := dst.target(base, isDir(st))
	if err != nil {
		return err
	}
	defer unix.Close(into)
	t := tree{ctx: ctx, into: dst.Place}
	if name != "." {
		t.node(from, st, into, name, src.Path)
		return t.err()
	}
	if !isDir(st) {
		return dst.pathError("copy to", dst.Path, unix.EISDIR)
	}
	t.mark(into)
	t.children(from, into, src.Path)
	return t.err()
}

// target finds the directory to write to and the name to make in it; "." when
// the directory itself is to be filled.
func (e *end) target(base string, dir bool) (int, string, error) {
	fd, err := e.open(e.Path, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		return fd, base, nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return -1, "", err
	}
	if strings.HasSuffix(e.Path, "/") && !dir {
		return -1, "", err // a directory that is not there was meant
	}
	parent, name := split(e.Path)
	fd, err = e.open(parent, unix.O_PATH|unix.O_DIRECTORY)
	return fd, name, err
}

// stream copies from or to something on the host that is to be read or written
// where it is: devices, pipes and, as with cp, links that were named as the
// destination. /dev/stdout is a link, whatever it stands for.
func stream(ctx context.Context, from int, st unix.Stat_t, src, dst *end) (handled bool, err error) {
	if dst.Container == "" && isThrough(dst.Path) {
		if isDir(st) {
			return true, dst.pathError("copy a directory to", dst.Path, unix.ENOTDIR)
		}
		out, err := os.OpenFile(dst.Path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return true, err
		}
		in, err := reopen(from, src.Path, unix.O_RDONLY)
		if err != nil {
			return true, errors.Join(err, out.Close())
		}
		return true, errors.Join(copyData(ctx, out, in), in.Close(), out.Close())
	}
	if src.Container != "" || isDir(st) || st.Mode&unix.S_IFMT == unix.S_IFREG {
		return false, nil
	}
	in, err := os.Open(src.Path)
	if err != nil {
		return true, err
	}
	defer in.Close()
	_, base := split(src.Path)
	into, name, err := dst.target(base, false)
	if err != nil {
		return true, err
	}
	defer unix.Close(into)
	return true, writeFile(ctx, in, into, name, 0o644)
}

// isThrough says whether a path of the host leads, through links or not, to
// something that must not be replaced by a new file.
func isThrough(path string) bool {
	var itself, behind unix.Stat_t
	if unix.Lstat(path, &itself) != nil || unix.Stat(path, &behind) != nil || isDir(behind) {
		return false
	}
	return itself.Mode&unix.S_IFMT != unix.S_IFREG
}

// tree copies what is below one directory.
type tree struct {
	ctx  context.Context
	into Place
	top  [2]uint64 // device and inode of the directory that is written to
	errs []error
}

// maxCopyErrors bounds how many files that could not be copied are named.
const maxCopyErrors = 10

func (t *tree) fail(name string, err error) {
	if len(t.errs) < maxCopyErrors {
		t.errs = append(t.errs, fmt.Errorf("%s: %w", name, err))
	}
}

func (t *tree) err() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	return errors.Join(t.errs...)
}

// mark remembers where is written, so that a directory is not copied into itself
// without end.
func (t *tree) mark(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		t.top = [2]uint64{uint64(st.Dev), st.Ino}
	}
}

// node copies one thing; from is an O_PATH descriptor of it, what its path.
func (t *tree) node(from int, st unix.Stat_t, into int, name, what string) {
	if t.ctx.Err() != nil {
		return
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = t.directory(from, st, into, name, what)
	case unix.S_IFREG:
		var in *os.File
		if in, err = reopen(from, what, unix.O_RDONLY); err == nil {
			err = errors.Join(writeFile(t.ctx, in, into, name, st.Mode&0o777), in.Close())
		}
	case unix.S_IFLNK:
		err = copyLink(from, into, name)
	default:
		err = fmt.Errorf("not copied, a device, a socket or a fifo: %w", ErrNoSupport)
	}
	if err != nil {
		t.fail(what, err)
	}
}

func (t *tree) directory(from int, st unix.Stat_t, into int, name, what string) error {
	if t.top == [2]uint64{uint64(st.Dev), st.Ino} {
		return errors.New("a directory is not copied into itself")
	}
	if err := unix.Mkdirat(into, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dir, err := unix.Openat(into, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("where a directory is to be made: %w", err)
	}
	defer unix.Close(dir)
	if t.top == [2]uint64{} {
		t.mark(dir)
	}
	t.children(from, dir, what)
	return unix.Fchmod(dir, st.Mode&0o777)
}

func (t *tree) children(from, into int, what string) {
	d, err := reopen(from, what, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		t.fail(what, err)
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.fail(what, err)
	}
	for _, name := range names {
		path := strings.TrimRight(what, "/") + "/" + name
		fd, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		var st unix.Stat_t
		if err == nil {
			if err = unix.Fstat(fd, &st); err == nil {
				t.node(fd, st, into, name, path)
			}
			unix.Close(fd)
		}
		if err != nil {
			t.fail(path, err)
		}
	}
}

// reopen opens what an O_PATH descriptor stands for, which can't have become a
// device or a fifo meanwhile.
func reopen(fd int, name string, flags int) (*os.File, error) {
	n, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(n), name), nil
}

func isDir(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
