package template

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// About templates.
var (
	ErrName     = errors.New("template names match [a-z0-9][a-z0-9-]{0,62}")
	ErrNotFound = errors.New("no such template")
	ErrExists   = errors.New("template already exists")
	// ErrDamaged: the volume is not, or no longer, what was published.
	ErrDamaged = errors.New("template is damaged")
)

// About building.
var (
	// ErrOption: the suite, variant, mirror or a package is not spelled as one.
	ErrOption = errors.New("invalid build option")
	// ErrToolMissing: mmdebstrap is not installed.
	ErrToolMissing = errors.New("mmdebstrap is not installed: apt-get install mmdebstrap")
	// ErrPackage: the suite does not have a package, or cannot install it.
	ErrPackage = errors.New("package cannot be installed")
	// ErrMirror: the mirror can't be reached, lacks the suite, or is signed
	// with an unknown key.
	ErrMirror = errors.New("package mirror is not usable")
)

// About importing.
var (
	// ErrSource: the source is neither a readable file nor a directory that
	// may be imported.
	ErrSource = errors.New("cannot be imported")
	// ErrArchive: not an archive, a broken one, or one with entries that are
	// refused.
	ErrArchive = errors.New("unacceptable archive")
	// ErrLimit: an archive exceeds a Limits field. It is also ErrArchive.
	ErrLimit = fmt.Errorf("%w: limit exceeded", ErrArchive)
	// ErrNotRoot: what was imported is not a root file system.
	ErrNotRoot = errors.New("not a root file system")
)

// BuildError is a run of mmdebstrap that failed. Lines are the decisive ones of
// its output, with control characters escaped. It unwraps to ErrPackage or
// ErrMirror where the output tells, and to how the process ended.
type BuildError struct {
	Suite string
	Lines []string
	Err   error
}

func (e *BuildError) Error() string {
	if len(e.Lines) == 0 {
		return fmt.Sprintf("mmdebstrap %s: %v", e.Suite, e.Err)
	}
	return fmt.Sprintf("mmdebstrap %s: %v: %s", e.Suite, e.Err, strings.Join(e.Lines, "; "))
}

// Unwrap gives the cause.
func (e *BuildError) Unwrap() error { return e.Err }

// wrapOp adds what was done to which template.
func wrapOp(op, name string, err *error) {
	if *err != nil {
		*err = fmt.Errorf("%s template %q: %w", op, name, *err)
	}
}

// noSpace adds storage.ErrNoSpace to the errnos that mean it.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", storage.ErrNoSpace, err)
	}
	return err
}
