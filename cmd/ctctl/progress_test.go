package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestShortCommandsShowNoProgress(t *testing.T) {
	for _, mode := range []progressMode{silent, lines, spinner} {
		var out lockedBuffer
		p := newProgress(&out, mode)
		p.say("working")
		p.stop()
		p.stop()
		if out.String() != "" {
			t.Errorf("mode %d: got %q", mode, out.String())
		}
	}
}

func TestLongCommandsSayWhatTheyDo(t *testing.T) {
	for mode, want := range map[progressMode]string{lines: "first …\nsecond …\n", spinner: "\r\x1b[K", silent: ""} {
		var out lockedBuffer
		p := newProgress(&out, mode)
		p.mu.Lock()
		p.began = p.began.Add(-patience)
		p.mu.Unlock()
		p.say("first")
		waitFor(t, mode, &out, "first")
		p.say("first") // not told twice
		p.say("second")
		waitFor(t, mode, &out, "second")
		p.stop()
		got := out.String()
		if mode == lines && got != want || !strings.HasSuffix(got, want) {
			t.Errorf("mode %d: got %q", mode, got)
		}
	}
}

func waitFor(t *testing.T, mode progressMode, out *lockedBuffer, text string) {
	t.Helper()
	if mode == silent {
		return
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in %q", text, out.String())
		}
	}
}

func TestALineWipesTheSpinnerFirst(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, mode: spinner, drawn: true}
	if _, err := p.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "\r\x1b[Khello\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
