package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// inits are looked for in this order. The first is what a kernel runs too; the
// others are there when systemd is installed without systemd-sysv.
var inits = []string{"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"}

// findInit returns the program to run as process 1 of the root file system in
// path, "" when there is none.
func findInit(path string) (name string, err error) {
	top, err := openTop(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	for _, name := range inits {
		st, err := statInRoot(top, name)
		if err != nil {
			return "", err
		}
		if executable(st) {
			return name, nil
		}
	}
	return "", nil
}

// statInRoot follows name as a process with its root at top would. The zero
// Stat_t says that it leads nowhere.
func statInRoot(top *os.File, name string) (st unix.Stat_t, err error) {
	f, err := openAt(top, name, unix.O_PATH, 0, inRoot)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return unix.Stat_t{}, nil
	}
	if err != nil {
		return unix.Stat_t{}, err
	}
	err = unix.Fstat(int(f.Fd()), &st)
	return st, errors.Join(err, f.Close())
}

func executable(st unix.Stat_t) bool {
	return st.Mode&typeMask == unix.S_IFREG && st.Mode&0o111 != 0
}

// rootDirs are the directories by which a root file system is known.
var rootDirs = []string{"bin", "etc", "lib", "sbin", "usr"}

// checkRoot returns ErrNotRoot unless top has one of rootDirs or at least one
// program that could be run: a single static binary makes a fine container.
func checkRoot(ctx context.Context, top *os.File) error {
	if n, err := countRootDirs(top); n > 0 || err != nil {
		return err
	}
	inner, err := innerRoot(top)
	if err != nil {
		return err
	}
	if inner != "" {
		return fmt.Errorf("%w: everything lies below %.200q, import what is in there", ErrNotRoot, inner)
	}
	err = walk(ctx, top, findExecutable{})
	if errors.Is(err, errFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: none of the directories /%s and no executable file in it",
		ErrNotRoot, strings.Join(rootDirs, ", /"))
}

func countRootDirs(top *os.File) (n int, err error) {
	for _, name := range rootDirs {
		st, err := statInRoot(top, name)
		if err != nil {
			return 0, err
		}
		if st.Mode&typeMask == unix.S_IFDIR {
			n++
		}
	}
	return n, nil
}

// innerRoot returns the name of the only entry when that is a directory which
// looks like a root file system.
func innerRoot(top *os.File) (name string, err error) {
	dir, err := openAt(top, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, here)
	if err != nil {
		return "", err
	}
	names, err := dir.Readdirnames(-1)
	if err = errors.Join(err, dir.Close()); err != nil || len(names) != 1 {
		return "", err
	}
	st, err := lstatAt(top, names[0])
	if err != nil || st.Mode&typeMask != unix.S_IFDIR {
		return "", err
	}
	inner, err := openAt(top, names[0], unix.O_RDONLY|unix.O_DIRECTORY, 0, here)
	if err != nil {
		return "", err
	}
	n, err := countRootDirs(inner)
	if err = errors.Join(err, inner.Close()); err != nil || n < 2 {
		return "", err
	}
	return names[0], nil
}

var errFound = errors.New("found")

// findExecutable ends a walk with errFound at the first executable file.
type findExecutable struct{}

func (findExecutable) enter(_ context.Context, n node) (bool, error) {
	if executable(n.st) {
		return false, errFound
	}
	return true, nil
}

func (findExecutable) leave(node) error { return nil }

func (findExecutable) mounted(node) error { return nil }
