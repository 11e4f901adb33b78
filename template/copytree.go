package template

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// copier copies a tree while walk shows it: owners, modes, times to the
// nanosecond, carried extended attributes, hard links and holes stay as they
// are. Devices and sockets are left out, and what is mounted below the source
// becomes an empty directory.
type copier struct {
	top   *os.File
	stack []*os.File // the directories that are being filled
	// links has the first name of files that have more than one.
	links map[inode]string
	// out are directories whose content is not copied.
	out map[inode]bool
	buf []byte
	skipped
}

// copyTree copies what is in src into the empty directory top, except what is in
// the directories out.
func copyTree(ctx context.Context, top, src *os.File, out map[inode]bool) (_ skipped, err error) {
	c := &copier{top: top, links: map[inode]string{}, out: out, buf: make([]byte, blockBytes)}
	defer func() {
		for _, dir := range c.stack { // after an error
			err = errors.Join(err, dir.Close())
		}
	}()
	err = walk(ctx, src, c)
	return c.skipped, noSpace(err)
}

func (c *copier) mounted(node) error {
	c.Mounts++
	return nil
}

// leave sets the attributes when nothing changes the directory any more.
func (c *copier) leave(n node) error {
	dir := c.stack[len(c.stack)-1]
	c.stack = c.stack[:len(c.stack)-1]
	src, err := openAt(n.dir, n.name, unix.O_PATH|unix.O_NOFOLLOW, 0, here&^unix.RESOLVE_NO_XDEV)
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	xattrs, err := readXattrs(src)
	if err == nil {
		err = attributesOf(n.st, xattrs).apply(dir, false)
	}
	return errors.Join(err, src.Close(), dir.Close())
}

func (c *copier) enter(ctx context.Context, n node) (bool, error) {
	if n.st.Uid > 65535 || n.st.Gid > 65535 {
		c.HighIDs++
	}
	switch n.kind() {
	case unix.S_IFDIR:
		return c.directory(n)
	case unix.S_IFCHR, unix.S_IFBLK:
		c.Devices++
		return false, nil
	case unix.S_IFSOCK:
		c.Sockets++
		return false, nil
	}
	if first, ok := c.links[n.inode()]; ok {
		// Only this process writes below top, so there is no link to follow.
		return false, unix.Linkat(int(c.top.Fd()), first, int(c.parent().Fd()), n.name, 0)
	}
	if n.st.Nlink > 1 {
		c.links[n.inode()] = n.path
	}
	return false, c.leaf(ctx, n)
}

func (c *copier) parent() *os.File { return c.stack[len(c.stack)-1] }

func (c *copier) directory(n node) (bool, error) {
	at := c.top
	if n.path != "." {
		at = c.parent()
		if err := unix.Mkdirat(int(at.Fd()), n.name, 0o700); err != nil {
			return false, err
		}
	}
	dir, err := openAt(at, n.name, unix.O_RDONLY|unix.O_DIRECTORY, 0, here)
	if err != nil {
		return false, err
	}
	c.stack = append(c.stack, dir)
	if c.out[n.inode()] {
		c.Mounts++
		return false, c.leave(n)
	}
	return true, nil
}

func (c *copier) leaf(ctx context.Context, n node) error {
	if n.kind() == unix.S_IFREG {
		return c.file(ctx, n)
	}
	src, err := handleAt(n.dir, n.name)
	if errors.Is(err, unix.EXDEV) {
		return c.mounted(n)
	}
	if err != nil {
		return err
	}
	xattrs, err := readXattrs(src)
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	at := int(c.parent().Fd())
	symlink := n.kind() == unix.S_IFLNK
	if symlink {
		target, err := readlinkAt(n.dir, n.name)
		if err != nil {
			return err
		}
		err = unix.Symlinkat(target, at, n.name)
		if err != nil {
			return err
		}
	} else if err := unix.Mkfifoat(at, n.name, 0o600); err != nil {
		return err
	}
	f, err := handleAt(c.parent(), n.name)
	if err != nil {
		return err
	}
	return errors.Join(attributesOf(n.st, xattrs).apply(f, symlink), f.Close())
}

func (c *copier) file(ctx context.Context, n node) error {
	src, err := n.open()
	if errors.Is(err, unix.EXDEV) { // a file that is mounted on a file
		delete(c.links, n.inode())
		return c.mounted(n)
	}
	if err != nil {
		return err
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL
	dst, err := openAt(c.parent(), n.name, flags, 0o600, here)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	err = c.content(ctx, dst, src, n.st.Size)
	if err == nil {
		var xattrs map[string][]byte
		if xattrs, err = readXattrs(src); err == nil {
			err = attributesOf(n.st, xattrs).apply(dst, false)
		}
	}
	return errors.Join(err, src.Close(), dst.Close())
}

// content shares the extents where the file system can and copies them
// otherwise.
func (c *copier) content(ctx context.Context, dst, src *os.File, size int64) error {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	err := eachBlock(ctx, src, size, c.buf, func(off int64, b []byte) error {
		return writeData(dst, off, b)
	})
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return dst.Truncate(size)
}
