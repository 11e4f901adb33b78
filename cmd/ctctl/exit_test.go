package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/template"
)

func op(err error) error { return &container.OpError{Op: "start", Name: "web1", Err: err} }

func TestExitCodesAndHints(t *testing.T) {
	state := func(op string, s container.Status) error { return &container.StateError{Op: op, Status: s} }
	tests := map[string]struct {
		err  error
		code int
		hint string // a part of it; "" for none
	}{
		"unknown":                {errors.New("x"), 1, ""},
		"usage":                  {usageError{msg: "x", command: "list"}, 2, "ctctl list --help"},
		"bad name":               {op(container.ErrName), 2, ""},
		"bad limit":              {op(quota.ErrBadLimit), 2, ""},
		"bad source":             {template.ErrSource, 2, ""},
		"bad mount point":        {checkpoint.ErrMounted, 2, "snapshot umount"},
		"no container":           {op(container.ErrNotFound), 3, "ctctl list -a"},
		"no snapshot":            {op(checkpoint.ErrNotFound), 3, "ctctl snapshot list web1"},
		"no template":            {op(template.ErrNotFound), 3, "ctctl template list"},
		"container exists":       {op(container.ErrExists), 4, "another name"},
		"snapshot exists":        {op(checkpoint.ErrExists), 4, "snapshot delete web1"},
		"wrong state":            {op(state("exec", container.Stopped)), 5, "ctctl start web1"},
		"suspended":              {op(state("start", container.Suspended)), 5, "ctctl resume web1"},
		"paused":                 {op(state("exec", container.Paused)), 5, "ctctl unpause web1"},
		"runs already":           {op(state("start", container.Running)), 5, "runs already"},
		"stopped already":        {op(state("stop", container.Stopped)), 5, "stopped already"},
		"destroy what runs":      {op(state("destroy", container.Running)), 5, "--force"},
		"write to suspended":     {op(state("cp", container.Suspended)), 5, "ctctl resume web1"},
		"busy":                   {op(&statefile.BusyError{}), 6, "try again"},
		"not root":               {host.ErrNotRoot, 7, "sudo"},
		"permission":             {op(fs.ErrPermission), 7, ""},
		"no room":                {op(checkpoint.ErrNoRoom), 9, "delete snapshots"},
		"no space":               {op(storage.ErrNoSpace), 9, "delete snapshots"},
		"address in use":         {op(netns.ErrAddressInUse), 9, "another address"},
		"dump":                   {op(&checkpoint.DumpError{Err: &criu.Error{Cure: "do this"}}), 10, "do this"},
		"dump that timed out":    {op(&checkpoint.DumpError{Err: context.DeadlineExceeded}), 10, ""},
		"restore":                {op(&checkpoint.RestoreError{Err: checkpoint.ErrDamaged}), 11, ""},
		"timeout":                {op(container.ErrTimeout), 13, "ctctl status web1"},
		"deadline":               {context.DeadlineExceeded, 13, ""},
		"interrupted":            {context.Canceled, 130, ""},
		"start of a bad command": {op(&runc.CommandError{Command: "x", Code: 127, Err: errors.New("y")}), 1, "config.json"},
		"partial":                {manyError{of: 2, errs: []error{op(container.ErrNotFound)}}.result(), 14, "ctctl list -a"},
		"all failed":             {manyError{of: 2, errs: []error{op(container.ErrNotFound), op(container.ErrExists)}}.result(), 3, ""},
		"one of one":             {manyError{of: 1, errs: []error{op(container.ErrExists)}}.result(), 4, ""},
		"no CRIU":                {criu.ErrNotInstalled, 1, "install-criu.sh"},
		"clean-up incomplete":    {op(fmt.Errorf("%w: x", container.ErrUndo)), 1, "ctctl repair web1"},
		"joined":                 {errors.Join(op(container.ErrNotFound), nil), 3, "ctctl list -a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
			got := hint(several(tt.err)[0])
			if (tt.hint == "") != (got == "") && tt.hint != "" || !strings.Contains(got, tt.hint) {
				t.Errorf("hint %q, want %q", got, tt.hint)
			}
		})
	}
}

func TestExecAnswersAsAShellDoes(t *testing.T) {
	tests := map[string]struct {
		code int
		err  error
		want int
	}{
		"done":           {0, nil, 0},
		"its own code":   {7, nil, 7},
		"by a signal":    {137, nil, 137},
		"not found":      {-1, op(&runc.CommandError{Code: 127, Err: errors.New("x")}), 127},
		"not executable": {-1, op(&runc.CommandError{Code: 126, Err: errors.New("x")}), 126},
		"no container":   {-1, op(container.ErrNotFound), 125},
		"wrong call":     {0, usageError{msg: "x"}, 125},
		"interrupted":    {137, context.Canceled, 130},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := asExec(inside(tt.code, tt.err))
			got := 0
			if err != nil {
				got = exitCode(fmt.Errorf("wrapped: %w", err))
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if tt.err == nil && err != nil && err.Error() != "" {
				t.Errorf("a command's own code has the message %q", err)
			}
		})
	}
}

func TestEachErrorOfSeveralHasItsOwnHint(t *testing.T) {
	var out bytes.Buffer
	complain(&out, manyError{of: 3, errs: []error{op(container.ErrNotFound), op(container.ErrExists)}}.result())
	want := `ctctl: start web1: no such container
hint: ctctl list -a shows what there is
ctctl: start web1: container exists already
hint: choose another name, or destroy that one
`
	if got := out.String(); got != want {
		t.Errorf("got %s", got)
	}
}

func TestAnErrorOfSeveralLinesIsToldOnce(t *testing.T) {
	var out bytes.Buffer
	complain(&out, errors.Join(errors.New("a: x"), errors.New("b: y"), errors.New("b: y")))
	if got, want := out.String(), "ctctl: a: x\n  b: y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessagesDoNotMoveTheCursor(t *testing.T) {
	var out bytes.Buffer
	complain(&out, errors.New("evil \x1b[2J\u009b2J name"))
	if strings.ContainsAny(out.String(), "\x1b\u009b") {
		t.Errorf("got %q", out.String())
	}
}

func TestDocumentationHasEveryExitCode(t *testing.T) {
	doc, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range exitTable {
		if !strings.Contains(string(doc), fmt.Sprintf("\n| %d | ", e.code)) {
			t.Errorf("docs/exit-codes.md lacks %d", e.code)
		}
	}
}
