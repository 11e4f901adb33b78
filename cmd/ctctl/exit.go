package main

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
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
	codePeer        = 12
	codeTimeout     = 13
	codePartial     = 14
	codeInterrupted = 130
)

// usageError is a call that can't be meant.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

// codeError ends the program with a code and without a message: a command run
// inside a container.
type codeError int

func (e codeError) Error() string { return "" }

// exitCode is the one place where errors become numbers.
func exitCode(err error) int {
	var code codeError
	var usage usageError
	var dump *checkpoint.DumpError
	var restore *checkpoint.RestoreError
	var cmd *runc.CommandError
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage), is(container.ErrName, container.ErrConfig, checkpoint.ErrName, template.ErrName):
		return codeUsage
	case errors.As(err, &restore):
		return codeRestore
	case errors.As(err, &dump):
		return codeDump
	case errors.As(err, &cmd):
		return cmd.Code
	case is(statefile.ErrBusy):
		return codeBusy
	case is(container.ErrNotFound, checkpoint.ErrNotFound, template.ErrNotFound, storage.ErrNotFound):
		return codeNotFound
	case is(container.ErrExists, checkpoint.ErrExists, template.ErrExists):
		return codeExists
	case is(container.ErrState):
		return codeState
	case is(host.ErrNotRoot, fs.ErrPermission):
		return codePermission
	case is(checkpoint.ErrNoRoom, storage.ErrNoSpace, netns.ErrAddressInUse):
		return codeResource
	case is(container.ErrTimeout, context.DeadlineExceeded):
		return codeTimeout
	}
	return codeOther
}

// hints are one line each: what to do about an error.
var hints = []struct {
	err  error
	text string
}{
	{host.ErrNotRoot, "run it with sudo"},
	{container.ErrNotFound, "ctctl list -a shows what there is"},
	{template.ErrNotFound, "ctctl template list shows what there is; ctctl template build makes one"},
	{checkpoint.ErrNotFound, "ctctl snapshot list NAME shows what there is"},
	{container.ErrUndo, "ctctl repair clears what was left"},
	{checkpoint.ErrDamaged, "the container was not touched; another snapshot may be whole"},
	{checkpoint.ErrNoRoom, "delete snapshots, or give the state root more space"},
	{netns.ErrAddressInUse, "choose another address; ctctl list -o name,ip shows those of this host"},
	{criu.ErrNotInstalled, "scripts/install-criu.sh installs CRIU 4.2 or newer"},
	{criu.ErrTooOld, "scripts/install-criu.sh installs CRIU 4.2 or newer"},
	{statefile.ErrBusy, "try again when it is done"},
}

func hint(err error) string {
	var ce *criu.Error
	if errors.As(err, &ce) && ce.Cure != "" {
		return ce.Cure
	}
	var state *container.StateError
	if errors.As(err, &state) {
		return stateHint(state)
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.text
		}
	}
	return ""
}

func stateHint(e *container.StateError) string {
	switch {
	case e.Op == "destroy":
		return "stop it first, or use --force"
	case e.Status == container.Suspended:
		return "ctctl resume NAME brings it back"
	case e.Status == container.Paused:
		return "ctctl unpause NAME lets it go on"
	case e.Status == container.Stopped:
		return "ctctl start NAME starts it"
	}
	return ""
}

// message is an error for people, control characters escaped.
func message(err error) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '\uFFFD'
		}
		return r
	}, err.Error())
}
