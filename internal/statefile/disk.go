package statefile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// disk holds the calls whose order and outcome decide what a crash leaves
// behind, so that tests can let each of them fail.
type disk struct {
	write  func(f *os.File, b []byte) (int, error)
	sync   func(f *os.File) error
	rename func(from, to string) error // replaces
	place  func(from, to string) error // fs.ErrExist when to exists
	remove func(path string) error     // a file or a tree; absent is nil
}

var realDisk = disk{
	write:  (*os.File).Write,
	sync:   (*os.File).Sync,
	rename: os.Rename,
	place:  renameNoReplace,
	remove: RemoveTree,
}

// SyncDir makes the names in a directory durable: created, renamed and removed
// entries survive a power cut only after it.
func SyncDir(path string) error { return realDisk.syncDir(path) }

func (d disk) syncDir(path string) error { return d.syncPath(path, unix.O_DIRECTORY) }

func (d disk) syncPath(path string, flags int) (err error) {
	// O_NONBLOCK: a name that turned into a fifo must not block us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return d.sync(f)
}

// renameNoReplace is renameat2(2) with RENAME_NOREPLACE: plain rename(2)
// silently replaces an empty directory.
func renameNoReplace(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
