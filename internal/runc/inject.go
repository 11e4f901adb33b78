package runc

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ctctl/ctctl/internal/thread"
	"github.com/ctctl/ctctl/profile"
	"golang.org/x/sys/unix"
)

// inject puts files into the tmpfs on /run of a container whose init waits. They
// are made as the container's root: the host's has no number in a file system that
// belongs to another user namespace, and can't make files there (EOVERFLOW).
func inject(pid int, ids *IDRange, files []profile.File) error {
	if len(files) == 0 {
		return nil
	}
	run, err := openRun(pid)
	if err != nil {
		return err
	}
	defer unix.Close(run)
	return thread.Spend(func() error {
		if ids != nil {
			if err := actAs(int(ids.Base)); err != nil {
				return err
			}
		}
		return writeFiles(run, files)
	})
}

func actAs(id int) error {
	if err := unix.Setfsgid(id); err != nil {
		return err
	}
	return unix.Setfsuid(id)
}

// openRun opens /run, which has to be the tmpfs that was mounted there.
func openRun(pid int) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "the container's root", Err: err}
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, "run", &how)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/run", Err: err}
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return -1, errors.Join(errors.New("/run is not a tmpfs"), err, unix.Close(fd))
	}
	return fd, nil
}

func writeFiles(run int, files []profile.File) error {
	for _, f := range files {
		if !filepath.IsLocal(f.Path) {
			return fmt.Errorf("%q leads out of /run", f.Path)
		}
		if err := writeFile(run, f); err != nil {
			return &os.PathError{Op: "write", Path: "/run/" + f.Path, Err: err}
		}
	}
	return nil
}

// beneath: the tmpfs is new, so that nothing but what was written here is in it.
var beneath = uint64(unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV)

func writeFile(run int, f profile.File) error {
	dir, err := makeDirs(run, path.Dir(f.Path))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	name := path.Base(f.Path)
	if f.Link != "" {
		return unix.Symlinkat(f.Link, dir, name)
	}
	how := unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC, Mode: 0o644, Resolve: beneath}
	if f.Program {
		how.Mode = 0o755
	}
	fd, err := unix.Openat2(dir, name, &how)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), name)
	_, err = file.WriteString(f.Text)
	return errors.Join(err, file.Close())
}

// makeDirs opens a directory below run, and makes what is missing of it, each from
// the one above it: no link is followed.
func makeDirs(run int, rel string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
	at, err := unix.Openat2(run, ".", &how)
	if err != nil || rel == "." {
		return at, err
	}
	for part := range strings.SplitSeq(rel, "/") {
		err := unix.Mkdirat(at, part, 0o755)
		next := -1
		if err == nil || errors.Is(err, unix.EEXIST) {
			next, err = unix.Openat2(at, part, &how)
		}
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}
