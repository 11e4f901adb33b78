package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDetachKeys(t *testing.T) {
	tests := map[string]struct {
		in     []string // as they arrive
		want   string
		detach bool
	}{
		"plain":                 {[]string{"ls\n"}, "ls\n", false},
		"ctrl-]":                {[]string{"a\x1db"}, "a", true},
		"ctrl-a q":              {[]string{"a\x01qb"}, "a", true},
		"ctrl-a Q":              {[]string{"\x01Q"}, "", true},
		"ctrl-a q in two parts": {[]string{"a\x01", "q"}, "a", true},
		"ctrl-a twice":          {[]string{"\x01\x01e"}, "\x01e", false},
		"ctrl-a and a letter":   {[]string{"\x01e"}, "\x01e", false},
		"ctrl-a held back":      {[]string{"x\x01"}, "x", false},
		"ctrl-a ctrl-]":         {[]string{"\x01\x1d"}, "", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var keys detachKeys
			got, detach := "", false
			for _, part := range tt.in {
				out, d := keys.filter([]byte(part))
				got, detach = got+string(out), detach || d
			}
			if got != tt.want || detach != tt.detach {
				t.Errorf("got %q %v, want %q %v", got, detach, tt.want, tt.detach)
			}
		})
	}
}

// readFrame reads what a client sends, as the supervisor does.
func readFrame(r io.Reader) (kind byte, body string, err error) {
	head := make([]byte, 3)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, "", err
	}
	b := make([]byte, binary.BigEndian.Uint16(head[1:]))
	_, err = io.ReadFull(r, b)
	return head[0], string(b), err
}

func TestAConsoleClientSendsKeysAndSizesAndShowsOutput(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	in, typed := io.Pipe()
	sizes := make(chan [2]uint16, 1)
	sizes <- [2]uint16{24, 80}
	type result struct {
		detached bool
		err      error
	}
	done := make(chan result, 1)
	var out bytes.Buffer
	go func() {
		d, err := attachTo(t.Context(), ours, ConsoleOptions{Stdin: in, Stdout: &out, Resize: sizes})
		done <- result{d, err}
	}()
	if _, err := theirs.Write([]byte("login: ")); err != nil {
		t.Fatal(err)
	}
	kind, body, err := readFrame(theirs)
	if err != nil || kind != frameSize || body != "\x00\x18\x00\x50" {
		t.Fatalf("got %q %q %v", kind, body, err)
	}
	go typed.Write([]byte("root\n"))
	if kind, body, err = readFrame(theirs); err != nil || kind != frameInput || body != "root\n" {
		t.Fatalf("got %q %q %v", kind, body, err)
	}
	go typed.Write([]byte{keyDetach})
	if r := <-done; r.err != nil || !r.detached {
		t.Errorf("got %+v", r)
	}
	if out.String() != "login: " {
		t.Errorf("shown: %q", out.String())
	}
}

func TestAConsoleThatClosesIsNotAnError(t *testing.T) {
	ours, theirs := net.Pipe()
	in, _ := io.Pipe()
	go theirs.Close()
	detached, err := attachTo(t.Context(), ours, ConsoleOptions{Stdin: in, Stdout: io.Discard})
	if err != nil || detached {
		t.Errorf("got %v %v", detached, err)
	}
}

func TestInputThatEndsDetachesAfterTheLastOutput(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		if _, _, err := readFrame(theirs); err == nil {
			theirs.Write([]byte("answer")) //nolint:errcheck // shows below
		}
	}()
	var out bytes.Buffer
	detached, err := attachTo(t.Context(), ours, ConsoleOptions{Stdin: strings.NewReader("question\n"), Stdout: &out})
	ours.Close()
	if err != nil || !detached {
		t.Errorf("got %v %v", detached, err)
	}
	if diff := cmp.Diff("answer", out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAConsoleEndsWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	in, _ := io.Pipe()
	_, err := attachTo(ctx, ours, ConsoleOptions{Stdin: in, Stdout: io.Discard})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
