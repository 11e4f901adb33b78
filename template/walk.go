package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// node is one name in a tree.
type node struct {
	dir  *os.File // the directory it is in
	name string
	path string // from the top, which is "."
	st   unix.Stat_t
}

func (n node) kind() uint32 { return n.st.Mode & typeMask }

func (n node) inode() inode { return inode{n.st.Dev, n.st.Ino} }

// open opens a regular file for reading, and sees to it that it still is the
// one that was looked at.
func (n node) open() (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME
	f, err := openAt(n.dir, n.name, flags, 0, here)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if (inode{st.Dev, st.Ino}) != n.inode() || st.Mode&typeMask != unix.S_IFREG {
		return nil, errors.Join(fmt.Errorf("%q was replaced while it was read", n.path), f.Close())
	}
	return f, nil
}

// inode tells hard links of one file from other files.
type inode struct{ dev, ino uint64 }

// visitor sees the names of a tree, those of a directory in byte order.
type visitor interface {
	// enter is called for every name; false keeps out of a directory.
	enter(ctx context.Context, n node) (bool, error)
	// leave is called for a directory that was entered, after its names.
	leave(n node) error
	// mounted is called instead of descending where something is mounted.
	mounted(n node) error
}

// walk visits the tree below top and top itself. It follows no symbolic link and
// crosses no mount point.
func walk(ctx context.Context, top *os.File, v visitor) error {
	st, err := lstatAt(top, ".")
	if err != nil {
		return err
	}
	return visit(ctx, v, node{dir: top, name: ".", path: ".", st: st})
}

func visit(ctx context.Context, v visitor, n node) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	into, err := v.enter(ctx, n)
	if err != nil {
		return fmt.Errorf("%q: %w", n.path, err)
	}
	if !into || n.kind() != unix.S_IFDIR {
		return nil
	}
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME
	dir, err := openAt(n.dir, n.name, flags, 0, here)
	if errors.Is(err, unix.EXDEV) {
		err = v.mounted(n)
	} else if err == nil {
		err = errors.Join(visitNames(ctx, v, n, dir), dir.Close())
	}
	if err != nil {
		return err
	}
	if err := v.leave(n); err != nil {
		return fmt.Errorf("%q: %w", n.path, err)
	}
	return nil
}

func visitNames(ctx context.Context, v visitor, n node, dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		st, err := lstatAt(dir, name)
		if err != nil {
			return err
		}
		if err := visit(ctx, v, node{dir: dir, name: name, path: path.Join(n.path, name), st: st}); err != nil {
			return err
		}
	}
	return nil
}
