package checkpoint

import (
	"errors"
	"fmt"

	"github.com/ctctl/ctctl/container"
)

var (
	ErrNotFound = errors.New("no such snapshot")
	ErrExists   = errors.New("snapshot exists already")
	ErrName     = errors.New("bad snapshot name: use a-z, 0-9, '.', '_' and '-', 1 to 63 characters, beginning with a letter or digit, but not with suspend-, and not ending in .tmp")
	ErrDamaged  = errors.New("image is damaged")
	ErrForeign  = errors.New("image was made by a newer version or for another machine")
	// ErrNoRoom: the estimate of the image does not fit on the file system.
	ErrNoRoom = errors.New("not enough room for the image")
	// ErrUndumpable: a process holds, or is, something that CRIU can't save; a
	// BlockedError says what.
	ErrUndumpable = errors.New("the container cannot be checkpointed")
	// ErrMounted: the directory is in use, or is not a mounted snapshot.
	ErrMounted = errors.New("bad mount point")
)

// DumpError says that the processes could not be dumped; the container goes on.
type DumpError struct {
	Tries int
	Err   error
}

func (e *DumpError) Error() string {
	return fmt.Sprintf("checkpoint failed after %d tries, the container goes on: %v", e.Tries, e.Err)
}
func (e *DumpError) Unwrap() error { return e.Err }

// RestoreError says that an image could not be brought back, and how the
// container is now.
type RestoreError struct {
	Now container.Status // what the container is after going back
	Err error
}

func (e *RestoreError) Error() string {
	return fmt.Sprintf("restore failed, the container is %s as before: %v", e.Now, e.Err)
}
func (e *RestoreError) Unwrap() error { return e.Err }
