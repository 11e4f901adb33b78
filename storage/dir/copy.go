package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// maxDepth bounds the descriptors that a tree nested by a hostile container
// can make us hold: two for each level.
const maxDepth = 1000

// copier copies one tree. The source belongs to a container, which may be
// running: every file is opened by one name below its directory's descriptor,
// examined, and then only used through that descriptor.
type copier struct {
	ctx context.Context
	top *os.File
	// links maps files with several names to the first copied, relative to top.
	links            map[inode]string
	noClone, noRange bool
	buffer           []byte
}

type inode struct{ dev, ino uint64 }

// copyTree copies what is below from, and from's own attributes, into the
// empty directory to. Something mounted below from is ErrInUse.
func copyTree(ctx context.Context, from, to *os.File) error {
	c := &copier{ctx: ctx, top: to, links: map[inode]string{}}
	return c.directory(from, to, "", 0)
}

func (c *copier) directory(from, to *os.File, rel string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%.80s…: directories are nested deeper than %d", rel, maxDepth)
	}
	for {
		names, err := from.Readdirnames(256)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.entry(from, to, name, rel, depth); err != nil {
				return err
			}
		}
	}
	_, st, err := examine(from)
	if err != nil {
		return err
	}
	if err := copyAttributes(from, to, st); err != nil {
		return fmt.Errorf("%q: %w", rel, err)
	}
	return nil
}

// entry copies one directory entry; one that is gone since the directory was
// read is no error.
func (c *copier) entry(from, to *os.File, name, rel string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(rel, name)
	src, err := openEntry(from, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	id, st, err := examine(src)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.subdirectory(src, to, name, path, depth)
	}
	if err == nil {
		err = c.leaf(src, to, name, path, id, st)
	}
	if err = errors.Join(err, src.Close()); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// leaf copies or links what is no directory.
func (c *copier) leaf(src, to *os.File, name, path string, id inode, st unix.Stat_t) error {
	if first, again := c.links[id]; again {
		return unix.Linkat(int(c.top.Fd()), first, int(to.Fd()), name, 0)
	}
	if err := c.file(src, to, name, st); err != nil {
		return err
	}
	if st.Nlink > 1 {
		c.links[id] = path
	}
	return nil
}

// subdirectory closes src, which is not needed on the way down.
func (c *copier) subdirectory(src, to *os.File, name, path string, depth int) (err error) {
	from, err := openAt(src, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME, 0)
	if err = errors.Join(err, src.Close()); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if err := unix.Mkdirat(int(to.Fd()), name, 0o700); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	dst, err := openAt(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return c.directory(from, dst, path, depth+1)
}

// file copies anything that is no directory.
func (c *copier) file(src, to *os.File, name string, st unix.Stat_t) (err error) {
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFREG:
		return c.regular(src, to, name, st)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(src.Fd()), "", target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), int(to.Fd()), name)
		}
		if err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(int(to.Fd()), name, kind|0o600, int(st.Rdev)); err != nil {
			return err
		}
	}
	dst, err := openAt(to, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return copyAttributes(src, dst, st)
}

func (c *copier) regular(src, to *os.File, name string, st unix.Stat_t) (err error) {
	in, err := os.OpenFile(procPath(src), os.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := openAt(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := c.content(in, out, st.Size); err != nil {
		return err
	}
	return copyAttributes(src, out, st)
}

// openEntry opens whatever the entry is without side effects (O_PATH), and
// refuses to step onto another mount.
func openEntry(dir *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), name), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: openat2(2), a rename raced
		case errors.Is(err, unix.EXDEV):
			return nil, fmt.Errorf("%w: something is mounted there", storage.ErrInUse)
		default:
			return nil, err
		}
	}
}

func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, mode)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

func examine(f *os.File) (inode, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return inode{}, st, fmt.Errorf("stat: %w", err)
	}
	return inode{dev: st.Dev, ino: st.Ino}, st, nil
}

// procPath names an open file, also one opened with O_PATH, for calls that
// take no descriptor. A symbolic link opened so is not followed.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
