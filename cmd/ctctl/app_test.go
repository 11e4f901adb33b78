package main

import (
	"context"
	"strings"
	"testing"
)

func TestAnInterruptedCommandSaysWhatItDidNotComeTo(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var done []string
	err := inTurn(ctx, "suspend", []string{"a", "b", "c"}, func(name string) error {
		done = append(done, name)
		interrupt() // too late for this one
		return nil
	})
	if len(done) != 1 || exitCode(err) != codePartial {
		t.Errorf("did %v, ends with %d", done, exitCode(err))
	}
	var out strings.Builder
	complain(&out, err)
	if want := "ctctl: suspend b: not begun: interrupted\nctctl: suspend c: not begun: interrupted\n"; out.String() != want {
		t.Errorf("says %q, not %q", out.String(), want)
	}
	err = inTurn(ctx, "suspend", []string{"a", "b"}, func(string) error { return nil })
	if exitCode(err) != codeInterrupted {
		t.Errorf("of an interruption before the first: %d", exitCode(err))
	}
}
