package runc

import (
	"fmt"

	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"
)

// SeccompBuiltIn says whether this binary can install seccomp filters.
func SeccompBuiltIn() bool { return lcseccomp.Enabled }

// TryUserNamespace makes a user namespace with that mapping for a moment.
func TryUserNamespace(ids IDRange) error {
	ns, err := userNamespace(ids)
	if err != nil {
		return err
	}
	return ns.Close()
}

// TryIDMap makes an id-mapped copy of the mount of dir. It is attached nowhere
// and goes again at once.
func TryIDMap(dir string, ids IDRange) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return mapMount(fd, &ids)
}
