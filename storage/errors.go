package storage

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The errors of every driver, for errors.Is.
var (
	ErrName        = errors.New("volume names match [a-z0-9][a-z0-9.-]{0,100} and don't end in .tmp")
	ErrNotFound    = errors.New("no such volume")
	ErrExists      = errors.New("volume already exists")
	ErrNoSpace     = errors.New("not enough space")
	ErrUnsupported = errors.New("not supported by this storage")
	ErrInUse       = errors.New("in use")
)

// OpError says which operation on which volume failed. Name is empty for
// operations on the store as a whole.
type OpError struct {
	Op, Name string
	Err      error
}

func (e *OpError) Error() string {
	if e.Name == "" {
		return e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s %q: %v", e.Op, e.Name, e.Err)
}

// Unwrap gives the cause.
func (e *OpError) Unwrap() error { return e.Err }

// WrapOp is for drivers: deferred at the top of an exported operation it turns
// a non-nil *err into an OpError, unless it is one already.
func WrapOp(op, name string, err *error) {
	var already *OpError
	if *err != nil && !errors.As(*err, &already) {
		*err = &OpError{Op: op, Name: name, Err: *err}
	}
}

// FromErrno is for drivers: it adds the sentinel that an errno stands for, and
// keeps the errno findable with errors.Is.
func FromErrno(err error) error {
	sentinel := error(nil)
	switch {
	case err == nil || isOurs(err):
		return err
	case errors.Is(err, unix.EEXIST):
		sentinel = ErrExists
	case errors.Is(err, unix.ENOENT):
		sentinel = ErrNotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		sentinel = ErrNoSpace
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ETXTBSY):
		sentinel = ErrInUse
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOSYS):
		sentinel = ErrUnsupported
	default:
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

func isOurs(err error) bool {
	for _, s := range []error{ErrName, ErrNotFound, ErrExists, ErrNoSpace, ErrUnsupported, ErrInUse} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}
