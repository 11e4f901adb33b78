package criu

import (
	"errors"
	"fmt"
	"strings"
)

// Finding and starting CRIU.
var (
	// ErrNotInstalled is returned when no criu binary was found.
	ErrNotInstalled = errors.New("criu is not installed")
	// ErrTooOld is returned when the binary is older than [MinVersion].
	ErrTooOld = errors.New("criu is too old")
)

// While dumping or restoring.
var (
	// ErrDeadline means that the operation took too long: the tasks were
	// thawed (dump) or killed (restore) and CRIU was made to give up, or
	// killed. CRIU's nftables lock may be left in the network namespace.
	ErrDeadline = errors.New("deadline exceeded")
	// ErrTaskLost means that the root task was killed while it was being
	// restored, for lack of memory or by hand. CRIU waits for it for ever.
	ErrTaskLost = errors.New("the first process was killed while it was being restored")
	// ErrStuck means that a CRIU process does not even die of SIGKILL: it
	// hangs in the kernel.
	ErrStuck = errors.New("criu does not end")
	// ErrTraced means that tasks are still traced after a dump was broken
	// off, so they may stand still.
	ErrTraced = errors.New("tasks are still traced")
	// ErrDone comes with the error of a Notify that CRIU paid no attention
	// to: the operation has been completed all the same.
	ErrDone = errors.New("criu completed the operation all the same")
	// ErrBadImage means that an image file is not what it should be.
	ErrBadImage = errors.New("malformed criu image")

	errRefused    = errors.New("criu refused")
	errWorkerGone = errors.New("criu ended without an answer")
)

// Error is a failed CRIU operation with what its log says.
type Error struct {
	// Op is "dump", "restore", "check"….
	Op string
	// Log is the path of CRIU's log; "" when it was not opened.
	Log string
	// Lines are the decisive messages of the log, first the cause, without
	// time stamps, control characters escaped. Empty when nothing is known.
	Lines []string
	// PID is the process that Lines speak of: on a dump as the host sees
	// it, on a restore as its own pid namespace does; 0 when unknown.
	PID int
	// InnerPID is the same process as its own pid namespace sees it, Command its
	// name (escaped), FD the descriptor that CRIU was at; 0, "" and -1 when
	// unknown.
	InnerPID int
	Command  string
	FD       int
	// Object names what CRIU stumbled over, such as "MPTCP socket"; "" when
	// the cause is not a known one.
	Object string
	// Cure says what a user can do, with NAME for the container's; "" when unknown.
	Cure string
	// Err is the cause outside CRIU: [ErrDeadline], the error of a Notify…
	Err error

	transient bool
}

// Error names the operation, the cause and the log.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("criu " + e.Op)
	if e.Object != "" {
		b.WriteString(": " + e.Object)
	}
	if who := e.who(); who != "" {
		b.WriteString(": " + who)
	}
	if e.Err != nil && (len(e.Lines) == 0 || !onlyRefused(e.Err)) {
		b.WriteString(": " + e.Err.Error())
	}
	if len(e.Lines) > 0 {
		b.WriteString(": " + e.Lines[0])
	}
	if e.Log != "" {
		b.WriteString(" (log: " + e.Log + ")")
	}
	return b.String()
}

// who names the process and the descriptor; "" when unknown.
func (e *Error) who() string {
	if e.PID == 0 {
		return ""
	}
	s := fmt.Sprintf("process %d", e.InnerPID)
	if e.InnerPID == 0 {
		s = fmt.Sprintf("pid %d", e.PID)
	}
	if e.Command != "" {
		s += " (" + e.Command + ")"
	}
	if e.FD >= 0 {
		s += fmt.Sprintf(" descriptor %d", e.FD)
	}
	return s
}

// Reason is what failed, in a few words.
func (e *Error) Reason() string {
	what := e.Object
	if what == "" && len(e.Lines) > 0 {
		what = e.Lines[0]
	}
	if what == "" {
		what = "unknown"
	}
	if who := e.who(); who != "" {
		what = who + ": " + what
	}
	return what
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Transient tells whether the same operation may well succeed a moment
// later, because the cause was something in flight. Retries must be bounded:
// each one stops the tasks for a while.
func (e *Error) Transient() bool { return e.transient }

// onlyRefused is true when err says no more than that CRIU said no.
func onlyRefused(err error) bool {
	return errors.Is(err, errRefused) && !errors.Is(err, ErrDeadline) && strings.HasPrefix(err.Error(), errRefused.Error())
}
