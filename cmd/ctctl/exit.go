package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/template"
)

// Exit codes; docs/exit-codes.md lists them for users.
const (
	codeOther       = 1
	codeUsage       = 2
	codeNotFound    = 3
	codeExists      = 4
	codeState       = 5
	codeBusy        = 6
	codePermission  = 7
	codeRefused     = 8
	codeResource    = 9
	codeDump        = 10
	codeRestore     = 11
	codeTimeout     = 13
	codePartial     = 14
	codeExec        = 125 // of exec: ctctl's own trouble
	codeInterrupted = 130
)

// exitTable is what the man pages say of them.
var exitTable = []struct {
	code    int
	meaning string
}{
	{0, "Done."},
	{codeOther, "An error that has no code of its own."},
	{codeUsage, "Unknown command or flag, or a bad value. Nothing was touched."},
	{codeNotFound, "No such container, snapshot or template."},
	{codeExists, "The name is taken."},
	{codeState, "The container's state does not allow it."},
	{codeBusy, "Another operation holds the container; the message names its process."},
	{codePermission, "Not root, or the kernel refuses."},
	{codeRefused, "Refused before anything was touched: an image that is damaged, or more than the container may be; a process that cannot be checkpointed; a limit that this host has no means for; of doctor: something fails."},
	{codeResource, "No room, no memory, a limit below what is in use, or an address or port that somebody has."},
	{codeDump, "The processes could not be checkpointed; the container still runs."},
	{codeRestore, "The processes could not be restored; the container is as it was before."},
	{codeTimeout, "A deadline passed."},
	{codePartial, "Of several containers it went well for some only; each failure is listed."},
	{codeExec, "Of exec, enter and runscript: ctctl itself failed. Else they end with the code of the command that ran inside, 126 when it cannot be executed, 127 when it was not found."},
	{codeInterrupted, "Interrupted; the operation was undone first."},
}

// usageError is a call that can't be meant.
type usageError struct {
	msg     string
	command string // whose help helps
	hint    string
}

func (e usageError) Error() string { return e.msg }

// codeError ends the program with a code of its own and, without an error, in
// silence: a command run inside a container.
type codeError struct {
	code int
	err  error
}

func (e codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e codeError) Unwrap() error { return e.err }

// manyError is what went wrong with some of several containers.
type manyError struct {
	of   int // how many containers there were
	errs []error
}

func (e manyError) result() error {
	switch {
	case len(e.errs) == 0:
		return nil
	case e.of == 1:
		return e.errs[0]
	}
	return e
}

func (e manyError) Error() string   { return errors.Join(e.errs...).Error() }
func (e manyError) Unwrap() []error { return e.errs }

// several parts an error of several containers.
func several(err error) []error {
	var many manyError
	if errors.As(err, &many) {
		return many.errs
	}
	return []error{err}
}

// codes is the one table of errors and numbers; the first that fits counts.
var codes = []struct {
	code int
	errs []error
}{
	{codeBusy, []error{statefile.ErrBusy}},
	{codeUsage, []error{
		container.ErrName, container.ErrConfig, checkpoint.ErrName, checkpoint.ErrMounted, template.ErrName,
		template.ErrOption, template.ErrSource, quota.ErrBadLimit, quota.ErrNoDevice, netns.ErrConfig, netns.ErrNoBridge,
	}},
	{codeNotFound, []error{container.ErrNotFound, checkpoint.ErrNotFound, template.ErrNotFound, storage.ErrNotFound}},
	{codeExists, []error{container.ErrExists, checkpoint.ErrExists, template.ErrExists, storage.ErrExists}},
	{codeState, []error{container.ErrState, storage.ErrInUse}},
	{codePermission, []error{host.ErrNotRoot}},
	{codeUsage, []error{host.ErrRunRoot}},
	{codeRefused, []error{checkpoint.ErrDamaged, checkpoint.ErrForeign, checkpoint.ErrUndumpable, runc.ErrExcess, quota.ErrUnsupported, container.ErrNoDiskLimit}},
	{codeResource, []error{checkpoint.ErrNoRoom, storage.ErrNoSpace, netns.ErrAddressInUse, netns.ErrAddressTaken, netns.ErrPortInUse, container.ErrTaken, quota.ErrBelowUsage}},
	{codeTimeout, []error{container.ErrTimeout, context.DeadlineExceeded}},
	{codeInterrupted, []error{context.Canceled}},
	{codePermission, []error{fs.ErrPermission}},
}

// exitCode is the one place where errors become numbers.
func exitCode(err error) int {
	var code codeError
	var usage usageError
	var dump *checkpoint.DumpError
	var restore *checkpoint.RestoreError
	var many manyError
	switch {
	case errors.As(err, &many):
		if len(many.errs) < many.of {
			return codePartial
		}
		return exitCode(many.errs[0])
	case errors.As(err, &code):
		return code.code
	case errors.As(err, &usage):
		return codeUsage
	case errors.As(err, &restore):
		return codeRestore
	case errors.As(err, &dump):
		return codeDump
	}
	for _, c := range codes {
		for _, target := range c.errs {
			if errors.Is(err, target) {
				return c.code
			}
		}
	}
	return codeOther
}

// inside turns the error of a command to be run in a container into the codes
// that a shell would give it.
func inside(code int, err error) error {
	var cmd *runc.CommandError
	switch {
	case errors.Is(err, context.Canceled):
		return codeError{codeInterrupted, err}
	case errors.As(err, &cmd):
		return codeError{cmd.Code, err}
	case err != nil:
		return codeError{codeExec, err}
	case code != 0:
		return codeError{code: code}
	}
	return nil
}

// message is an error for people, control characters replaced and each line once.
// That an error came of an interruption needs no words.
func message(err error) string {
	text := printable(err.Error())
	if errors.Is(err, context.Canceled) {
		text = strings.ReplaceAll(text, context.Canceled.Error(), "interrupted")
	}
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		if !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n  ")
}
