package quota

import (
	"errors"
	"fmt"
	"strings"
)

// Of what the user wrote.
var (
	// ErrBadLimit is a limit that cannot be understood or is out of range.
	ErrBadLimit = errors.New("bad limit")
	// ErrNoDevice is a device of an io limit that is no disk of this host.
	ErrNoDevice = errors.New("no such disk")
	// ErrBadName is a group name that is not "/ctctl-" and [0-9a-z-]+.
	ErrBadName = errors.New("bad cgroup name")
)

// Of the host and of the group.
var (
	// ErrNoCgroups means that no cgroup hierarchy is mounted.
	ErrNoCgroups = errors.New("no cgroup hierarchy is mounted")
	// ErrUnsupported means that the host lacks the controller or the freezer. It is
	// matched by every *UnsupportedError.
	ErrUnsupported = errors.New("not supported by this host's cgroups")
	// ErrNotFound means that the group does not exist.
	ErrNotFound = errors.New("no such cgroup")
	// ErrBelowUsage refuses a limit below what is in use; nothing was changed.
	ErrBelowUsage = errors.New("limit is below current usage")
	// ErrNotFrozen is matched by every *FreezeError.
	ErrNotFrozen = errors.New("could not freeze")
	// ErrTooManyCgroups: a container has more cgroups inside than can be recorded.
	ErrTooManyCgroups = errors.New("too many cgroups inside the container")
	// ErrPopulated means that processes are left in the group.
	ErrPopulated = errors.New("cgroup still has processes")
)

// UnsupportedError is a limit that this host's cgroups do not have. It matches
// ErrUnsupported.
type UnsupportedError struct {
	Limit      string // as the flag of ctctl set is called: "memory-high"
	Controller string // "memory"
	Version    string // of cgroups that the controller is in: "v1" or "v2"
	Why        string // a phrase
	Cure       string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: %v: %s controller of cgroup %s: %s; %s", e.Limit, ErrUnsupported, e.Controller, e.Version, e.Why, e.Cure)
}

// Unwrap lets errors.Is find ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// Task is one thread as an error message needs it.
type Task struct {
	PID     int    // thread id; of a single-threaded process, its pid
	Command string // comm, at most 15 bytes, control characters escaped
	State   byte   // as in /proc/PID/stat: R, S, D, T, t, Z
}

// String returns for example "4711 (postgres, state D)".
func (t Task) String() string { return fmt.Sprintf("%d (%s, state %c)", t.PID, t.Command, t.State) }

// FreezeError tells which tasks kept a group from freezing. The group has been
// thawed again. It matches ErrNotFrozen and the context's error.
type FreezeError struct {
	Group string
	Tasks []Task // empty if they could not be told
	Cause string // what these tasks were doing, one phrase
	Err   error  // why it was given up, usually the context's error
}

func (e *FreezeError) Error() string {
	s := fmt.Sprintf("freeze %s: %s", e.Group, e.Cause)
	if len(e.Tasks) > 0 {
		s += ": " + taskList(e.Tasks)
	}
	return s + ": " + e.Err.Error() + "; the group was thawed and goes on"
}

// Unwrap lets errors.Is find ErrNotFrozen and the context's error.
func (e *FreezeError) Unwrap() []error { return []error{ErrNotFrozen, e.Err} }

// taskList names at most eight tasks, so that the message stays readable.
func taskList(tasks []Task) string {
	const most = 8
	var b strings.Builder
	for i, t := range tasks {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(tasks)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(t.String())
	}
	return b.String()
}
