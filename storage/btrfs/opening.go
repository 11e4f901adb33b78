package btrfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// openVolumes never reports ErrNotFound: a pool that somebody detached must
// not look like one without volumes.
func (d *Driver) openVolumes() (*os.File, error) {
	f, err := os.Open(d.volumes)
	if err != nil {
		return nil, fmt.Errorf("the volumes are not there, has the pool been detached? %s", err.Error())
	}
	return f, nil
}

var errNoSubvolume = errors.New("not a subvolume")

// openVolume opens the top directory of a volume without following links.
func openVolume(dir *os.File, name string) (*os.File, error) {
	if err := storage.CheckName(name); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	_, st, err := identify(f)
	if err == nil && st.Ino != firstFreeObject {
		err = fmt.Errorf("%s: %w", name, errNoSubvolume)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
