package runc

import "errors"

var (
	// ErrNotFound: libcontainer knows no container of that id below the state directory.
	ErrNotFound = errors.New("container is not running")
	// ErrNoSeccomp: the binary was built without the seccomp tag.
	ErrNoSeccomp = errors.New("built without seccomp support: build with -tags seccomp")
	// ErrExcess: a restored container would have more rights than its configuration gives.
	ErrExcess = errors.New("image exceeds the container's configuration")
	// ErrUser: the user or group is not in the container's passwd or group file.
	ErrUser = errors.New("no such user in the container")
)

// CommandError says that a command could not be started inside the container.
// Code is what a shell would answer: 127 not found, 126 not executable.
type CommandError struct {
	Command string
	Code    int
	Err     error
}

func (e *CommandError) Error() string { return e.Command + ": " + e.Err.Error() }
func (e *CommandError) Unwrap() error { return e.Err }
