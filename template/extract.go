package template

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Type flags that the tar package has no name for.
const (
	tarVolumeLabel = 'V'
	tarContiguous  = '7'
)

// skipped counts what an import leaves out.
type skipped struct {
	Devices, Sockets, Mounts int
	// HighIDs counts names that belong to a user or group above 65535, which
	// containers see as nobody.
	HighIDs int
}

// extractor writes the entries of a tar archive below a directory.
type extractor struct {
	top    *os.File
	limits Limits
	skipped

	entries, bytes, names int64
	dirs                  []dirTime
	buf                   []byte
}

// dirTime is set at the end: every entry in a directory changes its times.
type dirTime struct {
	name string
	a    attributes
}

// extract fills the directory top from the archive in file.
func extract(ctx context.Context, top *os.File, file io.Reader, l Limits) (_ skipped, err error) {
	s, err := openStream(ctx, file, l)
	if err != nil {
		return skipped{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	x := &extractor{top: top, limits: l.withDefaults(), buf: make([]byte, blockBytes)}
	if err := x.all(tar.NewReader(s)); err != nil {
		return skipped{}, err
	}
	// What follows the archive matters only for the checksum of the whole.
	if _, err := io.Copy(io.Discard, s); err != nil {
		return skipped{}, archiveError(err)
	}
	return x.skipped, nil
}

func (x *extractor) all(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, tar.ErrHeader) && x.entries == 0 {
			return fmt.Errorf("%w: not a tar archive, plain or compressed with gzip, xz, zstd or bzip2", ErrArchive)
		}
		if err != nil {
			return archiveError(err)
		}
		if err := x.entry(h, r); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, blame(err))
		}
	}
	if x.entries == 0 {
		return fmt.Errorf("%w: it is empty", ErrArchive)
	}
	return x.finish()
}

// entry extracts one entry, whose content is what r has next.
func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == tarVolumeLabel {
		return nil
	}
	name, err := entryName(h.Name)
	if err == nil {
		err = x.count(h)
	}
	if err != nil {
		return err
	}
	a, err := x.attributes(h)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.directory(name, a)
	case tar.TypeChar, tar.TypeBlock:
		x.Devices++
		return nil
	case tar.TypeReg, tar.TypeGNUSparse, tarContiguous, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo:
		return x.leaf(name, h, a, r)
	}
	return fmt.Errorf("%w: entry of unknown type %q", ErrArchive, h.Typeflag)
}

// entryName returns the name from the top without "." elements; "." is the top.
func entryName(name string) (string, error) {
	switch {
	case name == "" || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("%w: unusable name %.200q", ErrArchive, name)
	case strings.HasPrefix(name, "/"):
		return "", fmt.Errorf("%w: absolute name %.200q", ErrArchive, name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return "", fmt.Errorf("%w: name with \"..\": %.200q", ErrArchive, name)
		}
	}
	return path.Clean(name), nil
}

func (x *extractor) count(h *tar.Header) error {
	x.entries++
	x.names += int64(len(h.Name))
	if x.entries > x.limits.Entries || x.names/nameBytesEach > x.limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, x.limits.Entries)
	}
	if h.Size < 0 || h.Size > x.limits.Bytes-x.bytes {
		return fmt.Errorf("%w: files of more than %d bytes", ErrLimit, x.limits.Bytes)
	}
	x.bytes += h.Size
	return nil
}

func (x *extractor) attributes(h *tar.Header) (attributes, error) {
	const noID = 1<<32 - 1 // chown(2) takes it as "leave unchanged"
	if h.Uid < 0 || h.Uid >= noID || h.Gid < 0 || h.Gid >= noID {
		return attributes{}, fmt.Errorf("%w: impossible owner %d:%d", ErrArchive, h.Uid, h.Gid)
	}
	if h.Uid > 65535 || h.Gid > 65535 {
		x.HighIDs++
	}
	mtime, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return attributes{}, fmt.Errorf("%w: impossible time %v", ErrArchive, h.ModTime)
	}
	a := attributes{
		uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777,
		atime: mtime, mtime: mtime, xattrs: map[string][]byte{},
	}
	file := h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeFifo // xattr(7)
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if ok && file && (name == "security.capability" || strings.HasPrefix(name, "user.")) {
			a.xattrs[name] = []byte(value)
		}
	}
	return a, nil
}

func (x *extractor) directory(name string, a attributes) error {
	if name != "." {
		if err := x.mkdir(name); err != nil {
			return err
		}
	}
	dir, err := openAt(x.top, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, inRoot)
	if err != nil {
		return err
	}
	x.dirs = append(x.dirs, dirTime{name, a})
	return errors.Join(a.apply(dir, false), dir.Close())
}

// mkdir keeps a directory that is there, and replaces anything else.
func (x *extractor) mkdir(name string) error {
	parent, base, err := openParent(x.top, name)
	if err != nil {
		return err
	}
	st, err := lstatAt(parent, base)
	if err != nil || st.Mode&typeMask != unix.S_IFDIR {
		err = clearName(parent, base)
		if err == nil {
			err = unix.Mkdirat(int(parent.Fd()), base, 0o700)
		}
	}
	return errors.Join(err, parent.Close())
}

// clearName removes what an entry replaces: never what a link leads to, and no
// directory that holds something.
func clearName(dir *os.File, base string) error {
	err := unix.Unlinkat(int(dir.Fd()), base, 0)
	if errors.Is(err, unix.EISDIR) {
		err = unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("replace: %w", err)
	}
	return nil
}

func (x *extractor) leaf(name string, h *tar.Header, a attributes, r io.Reader) error {
	if name == "." {
		return fmt.Errorf("%w: the top is not a directory", ErrArchive)
	}
	dir, base, err := openParent(x.top, name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeLink:
		err = x.link(dir, base, h.Linkname)
	case tar.TypeSymlink:
		err = x.make(dir, base, a, true, func() error { return unix.Symlinkat(h.Linkname, int(dir.Fd()), base) })
	case tar.TypeFifo:
		err = x.make(dir, base, a, false, func() error { return unix.Mkfifoat(int(dir.Fd()), base, 0o600) })
	default:
		err = x.file(dir, base, h.Size, a, r)
	}
	return errors.Join(err, dir.Close())
}

// make makes something that has no content.
func (x *extractor) make(dir *os.File, base string, a attributes, symlink bool, do func() error) error {
	if err := clearName(dir, base); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	f, err := handleAt(dir, base)
	if err != nil {
		return err
	}
	return errors.Join(a.apply(f, symlink), f.Close())
}

func (x *extractor) file(dir *os.File, base string, size int64, a attributes, r io.Reader) error {
	if err := clearName(dir, base); err != nil {
		return err
	}
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	f, err := openAt(dir, base, flags, 0o600, here)
	if err != nil {
		return err
	}
	err = x.content(f, size, r)
	if err == nil {
		err = a.apply(f, false)
	}
	return errors.Join(err, f.Close())
}

// content leaves holes where the archive has zeros, which is how the tar package
// gives holes.
func (x *extractor) content(f *os.File, size int64, r io.Reader) error {
	for off := int64(0); off < size; {
		b := x.buf[:min(blockBytes, size-off)]
		if _, err := io.ReadFull(r, b); err != nil {
			return archiveError(err)
		}
		if err := writeData(f, off, b); err != nil {
			return noSpace(err)
		}
		off += int64(len(b))
	}
	return f.Truncate(size)
}

// link makes another name of something that the archive brought before.
func (x *extractor) link(dir *os.File, base, target string) error {
	target, err := entryName(target)
	if err != nil {
		return fmt.Errorf("hard link: %w", err)
	}
	up, last := path.Split(target)
	from, err := openAt(x.top, path.Clean("./"+up), unix.O_PATH|unix.O_DIRECTORY, 0, inRoot)
	if err != nil {
		return fmt.Errorf("hard link to %.200q: %w", target, err)
	}
	err = linkAt(from, last, dir, base)
	if err != nil {
		err = fmt.Errorf("hard link to %.200q: %w", target, err)
	}
	return errors.Join(err, from.Close())
}

func linkAt(from *os.File, target string, dir *os.File, base string) error {
	st, err := lstatAt(from, target)
	if err != nil {
		return err
	}
	if st.Mode&typeMask == unix.S_IFDIR {
		return fmt.Errorf("%w: to a directory", ErrArchive)
	}
	now, err := lstatAt(dir, base)
	if err == nil && now.Dev == st.Dev && now.Ino == st.Ino {
		return nil // to itself: replacing would remove the only name
	}
	if err := clearName(dir, base); err != nil {
		return err
	}
	// Without AT_SYMLINK_FOLLOW a link to a symbolic link is just that.
	return unix.Linkat(int(from.Fd()), target, int(dir.Fd()), base, 0)
}

// finish sets the times of directories. One that a later entry replaced has the
// times of that entry.
func (x *extractor) finish() error {
	for _, d := range x.dirs {
		dir, err := openAt(x.top, d.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, inRoot)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		times := []unix.Timespec{d.a.atime, d.a.mtime}
		err = unix.UtimesNanoAt(int(dir.Fd()), "", times, unix.AT_EMPTY_PATH)
		if err := errors.Join(err, dir.Close()); err != nil {
			return fmt.Errorf("set times of %q: %w", d.name, err)
		}
	}
	return nil
}

// blame makes errors that only the archive can cause an ErrArchive.
func blame(err error) error {
	if errors.Is(err, ErrArchive) {
		return err
	}
	for _, errno := range []unix.Errno{
		unix.EEXIST, unix.EINVAL, unix.EISDIR, unix.ELOOP, unix.EMLINK, unix.ENAMETOOLONG,
		unix.ENOENT, unix.ENOTDIR, unix.ENOTEMPTY, unix.ERANGE, unix.EXDEV,
	} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
	}
	return noSpace(err)
}
