package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Import makes a template of a directory, or of an archive: tar, plain or
// compressed with gzip, xz, zstd or bzip2, recognised by its content. See the
// package comment for what is taken over. Errors: ErrName, ErrExists, ErrSource,
// ErrArchive, ErrLimit, ErrNotRoot, storage.ErrNoSpace, statefile.ErrBusy.
func (m Manager) Import(ctx context.Context, name, source string) (t Template, err error) {
	defer wrapOp("import", name, &err)
	if err := CheckName(name); err != nil {
		return Template{}, err
	}
	source, err = filepath.Abs(source)
	if err != nil {
		return Template{}, err
	}
	src, st, err := openSource(source)
	if err != nil {
		return Template{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	needBytes := st.Size // of an archive: what comes out is not less
	if st.Mode&typeMask == unix.S_IFDIR {
		needBytes = 0
	}
	d, err := m.begin(ctx, name, "import", needBytes)
	if err != nil {
		return Template{}, err
	}
	published := false
	defer func() { err = errors.Join(err, d.end(ctx, published)) }()
	if err := d.fill(ctx, src, st); err != nil {
		return Template{}, err
	}
	t, err = d.publish(ctx, Template{Source: source})
	published = err == nil
	return t, err
}

// openSource opens a regular file or a directory; opening a fifo would block,
// and opening a device may do anything.
func openSource(source string) (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Stat(source, &st); err != nil {
		return nil, st, fmt.Errorf("%w: %w", ErrSource, &os.PathError{Op: "stat", Path: source, Err: err})
	}
	if kind := st.Mode & typeMask; kind != unix.S_IFDIR && kind != unix.S_IFREG {
		return nil, st, fmt.Errorf("%w: %s is neither a file nor a directory", ErrSource, source)
	}
	fd, err := unix.Open(source, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, st, fmt.Errorf("%w: %w", ErrSource, &os.PathError{Op: "open", Path: source, Err: err})
	}
	f := os.NewFile(uintptr(fd), source)
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	if now.Mode&typeMask != st.Mode&typeMask {
		return nil, st, errors.Join(fmt.Errorf("%w: %s was replaced", ErrSource, source), f.Close())
	}
	return f, now, nil
}

// fill puts the source into the working volume.
func (d *draft) fill(ctx context.Context, src *os.File, st unix.Stat_t) (err error) {
	top, err := openTop(d.path())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	var out skipped
	if st.Mode&typeMask == unix.S_IFDIR {
		d.m.progress("copying the directory")
		out, err = d.copy(ctx, top, src)
	} else {
		d.m.progress("extracting the archive")
		out, err = extract(ctx, top, src, d.m.Limits)
	}
	if err != nil {
		return err
	}
	if out != (skipped{}) {
		d.m.log().Warn("not everything was imported as it is", "op", "import", "template", d.name,
			"devices", out.Devices, "sockets", out.Sockets, "mounts", out.Mounts, "ids_above_65535", out.HighIDs)
	}
	return checkRoot(ctx, top)
}

// copy refuses sources in the state root, whose trees change under our hands or
// belong to other containers, and leaves the state root out of others.
func (d *draft) copy(ctx context.Context, top, src *os.File) (skipped, error) {
	own := map[inode]bool{}
	for _, dir := range []string{filepath.Dir(d.m.Dir), filepath.Dir(d.path())} {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return skipped{}, &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		own[inode{st.Dev, st.Ino}] = true
	}
	inside, err := isBelow(src, own)
	if err != nil {
		return skipped{}, err
	}
	if inside {
		return skipped{}, fmt.Errorf("%w: %s lies in the state directory", ErrSource, src.Name())
	}
	return copyTree(ctx, top, src, own)
}

// isBelow reports whether dir or a directory above it is one of those. It asks
// the kernel for "..", because names may lead through links and bind mounts.
func isBelow(dir *os.File, those map[inode]bool) (bool, error) {
	at, err := openAt(dir, ".", unix.O_PATH|unix.O_DIRECTORY, 0, 0)
	for last := (place{}); err == nil; {
		now, failed := placeOf(at)
		if failed != nil {
			return false, errors.Join(failed, at.Close())
		}
		if those[now.inode] || now == last { // ".." of the root is the root
			return those[now.inode], at.Close()
		}
		last = now
		up, failed := openAt(at, "..", unix.O_PATH|unix.O_DIRECTORY, 0, 0)
		err = errors.Join(failed, at.Close())
		at = up
	}
	return false, err
}

// place is a directory as seen through one mount: a bind mount can make a
// directory its own grandchild.
type place struct {
	inode
	mount uint64
}

func placeOf(dir *os.File) (place, error) {
	st, err := lstatAt(dir, ".")
	if err != nil {
		return place{}, err
	}
	var stx unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &stx); err != nil {
		return place{}, fmt.Errorf("statx: %w", err)
	}
	return place{inode{st.Dev, st.Ino}, stx.Mnt_id}, nil
}
