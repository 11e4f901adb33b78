package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep removing descends with one descriptor a level. What
// lies deeper is first moved up to the top of the tree: whoever could write in
// it must not be able to make it unremovable by nesting a million directories.
const maxDepth = 128

// RemoveTree removes path and everything below it; absent is no error. It
// never follows a symbolic link and never crosses a mount point: when anything
// at or below path is one, or is on another device (as a btrfs subvolume is),
// it removes nothing and returns ErrMounted. A forgotten bind mount would
// otherwise hand the user's files to the removal. Something that is mounted
// while it runs stops it there, with the same error. The removal is durable
// only after SyncDir of the parent.
func RemoveTree(path string) error {
	if err := removeTree(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// SweepTemp removes the entries directly below dir that end in ".tmp", as
// interrupted writers leave them, and returns the names of those that are
// gone. The caller must hold the locks of whoever writes there. It goes on
// after an error; an absent dir is empty.
func SweepTemp(dir string) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if err := RemoveTree(filepath.Join(dir, e.Name())); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, e.Name())
	}
	return removed, errors.Join(errs...)
}

func removeTree(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	// mountinfo has no links in its paths.
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	if at, ok := mountAtOrBelow(mounts, filepath.Join(dir, name)); ok {
		return fmt.Errorf("%s: %w", at, ErrMounted)
	}
	parent, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	r := remover{at: parent, name: name}
	return errors.Join(r.run(), unix.Close(parent))
}

// remover removes the entry name of the directory at.
type remover struct {
	at    int
	name  string
	dev   uint64 // the only device it may touch
	top   int    // descriptor of the tree's top while it is emptied
	moved int    // directories moved up so far
}

func (r *remover) run() error {
	var parent, st unix.Stat_t
	if err := unix.Fstat(r.at, &parent); err != nil {
		return err
	}
	err := unix.Fstatat(r.at, r.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unlink(r.at, r.name, 0)
	}
	if st.Dev != parent.Dev {
		return fmt.Errorf("on another device than its parent: %w", ErrMounted)
	}
	r.dev = st.Dev
	top, err := r.open(r.at, r.name)
	if err != nil {
		return err
	}
	r.top = int(top.Fd())
	// First look, then remove: half a tree is worse than a refusal.
	err = r.check(top, 0)
	for again := true; err == nil && again; {
		before := r.moved
		err = r.empty(top, 0)
		again = r.moved > before
	}
	if err = errors.Join(err, top.Close()); err != nil {
		return err
	}
	return unlink(r.at, r.name, unix.AT_REMOVEDIR)
}

// open opens a subdirectory. RESOLVE_NO_XDEV makes the kernel (5.6) refuse
// mount points also of the same file system, where the device number, compared
// for the sake of btrfs subvolumes, tells nothing.
func (r *remover) open(at int, name string) (*os.File, error) {
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	})
	if errors.Is(err, unix.EXDEV) {
		return nil, fmt.Errorf("%s: %w", name, ErrMounted)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if st.Dev != r.dev {
		return nil, errors.Join(fmt.Errorf("%s: on another device: %w", name, ErrMounted), f.Close())
	}
	return f, nil
}

// check opens every directory down to maxDepth.
func (r *remover) check(dir *os.File, depth int) error {
	return eachName(dir, func(name string) error {
		var st unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || depth >= maxDepth {
			return err
		}
		return r.within(dir, name, func(sub *os.File) error { return r.check(sub, depth+1) })
	})
}

// empty removes what is in dir. What it moves to the top is left for the next
// call on the top.
func (r *remover) empty(dir *os.File, depth int) error {
	at := int(dir.Fd())
	return eachName(dir, func(name string) error {
		err := unlink(at, name, 0)
		if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
			return err
		}
		// EPERM is what POSIX says for directories, and what an immutable
		// file gives: then opening it as a directory fails and both are told.
		if depth >= maxDepth {
			return r.lift(at, name)
		}
		inner := r.within(dir, name, func(sub *os.File) error { return r.empty(sub, depth+1) })
		if errors.Is(inner, unix.ENOTDIR) {
			return err
		}
		if inner != nil {
			return inner
		}
		return unlink(at, name, unix.AT_REMOVEDIR)
	})
}

// lift moves a directory to the top, under a name that is free there.
func (r *remover) lift(at int, name string) error {
	for {
		r.moved++
		to := ".removed-" + strconv.Itoa(r.moved)
		err := unix.Renameat2(at, name, r.top, to, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			return &fs.PathError{Op: "rename", Path: name, Err: err}
		}
	}
}

func (r *remover) within(dir *os.File, name string, do func(*os.File) error) error {
	sub, err := r.open(int(dir.Fd()), name)
	if err != nil {
		return err
	}
	return errors.Join(do(sub), sub.Close())
}

// eachName reads all names before it calls f, because what readdir returns of
// a directory that changes meanwhile is unspecified (readdir(3)).
func eachName(dir *os.File, f func(name string) error) error {
	if _, err := dir.Seek(0, io.SeekStart); err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

func unlink(at int, name string, flags int) error {
	switch err := unix.Unlinkat(at, name, flags); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY): // mounted after we had looked
		return fmt.Errorf("%s: %w", name, ErrMounted)
	default:
		return &fs.PathError{Op: "unlink", Path: name, Err: err}
	}
}
