package container

import (
	"errors"
	"fmt"
	"strings"
)

var (
	ErrNotFound = errors.New("no such container")
	ErrExists   = errors.New("container exists already")
	ErrState    = errors.New("wrong state")
	ErrName     = errors.New("bad name: use a-z, 0-9 and '-', 1 to 63 characters, not beginning with '-'")
	ErrConfig   = errors.New("bad configuration")
	// ErrTaken refuses an address or a port that another container has.
	ErrTaken     = errors.New("taken")
	ErrTimeout   = errors.New("timed out")
	ErrDied      = errors.New("container ended while it was being started")
	ErrNoSupport = errors.New("not supported here")
	// ErrNoDiskLimit refuses a disk limit where the storage has none.
	ErrNoDiskLimit = errors.New("not supported here: disk limits need a btrfs pool and Linux 6.7")
	// ErrNoConsole: nothing serves the console of a container that runs.
	ErrNoConsole = errors.New("the console cannot be reached")
	// ErrUndo marks errors of the clean-up after a failed operation.
	ErrUndo = errors.New("clean-up incomplete, run: ctctl repair")
)

// OpError is what every exported operation returns on failure.
type OpError struct {
	Op, Name string
	Err      error
}

func (e *OpError) Error() string {
	if e.Name == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return e.Op + " " + e.Name + ": " + e.Err.Error()
}
func (e *OpError) Unwrap() error { return e.Err }

func wrapOp(op, name string, err *error) {
	if *err == nil {
		return
	}
	var already *OpError
	if errors.As(*err, &already) && already.Name == name {
		return
	}
	*err = &OpError{Op: op, Name: name, Err: *err}
}

// StateError says that an operation does not fit the container's status.
type StateError struct {
	Op     string
	Status Status
	Need   []Status
}

func (e *StateError) Error() string {
	var need []string
	for _, s := range e.Need {
		need = append(need, string(s))
	}
	return fmt.Sprintf("container is %s, %s needs it %s", e.Status, e.Op, strings.Join(need, " or "))
}
func (e *StateError) Is(target error) bool { return target == ErrState }
