package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

const (
	// patience is how long a command works before it says what it does.
	patience = time.Second
	frame    = 120 * time.Millisecond
)

// progress tells people what a long command is doing: one line that is drawn
// anew on a terminal, one line for each phase elsewhere, nothing with --quiet. It
// is also the way for every other line to stderr, so that these do not mix.
type progress struct {
	mu     sync.Mutex
	w      io.Writer
	mode   progressMode
	began  time.Time
	phase  string
	told   string // the phase that was printed last
	drawn  bool   // a line is on the terminal now
	turn   int
	ending chan struct{}
	ended  chan struct{}
}

type progressMode int

const (
	silent progressMode = iota
	lines
	spinner
)

// newProgress begins to watch the time; stop it.
func newProgress(w io.Writer, mode progressMode) *progress {
	p := &progress{w: w, mode: mode, began: time.Now(), ending: make(chan struct{}), ended: make(chan struct{})}
	if mode == silent {
		close(p.ended)
		return p
	}
	go p.run()
	return p
}

// progressFor chooses how to tell.
func progressFor(c *cli.Context) progressMode {
	if c.Bool("quiet") {
		return silent
	}
	if f, ok := c.App.ErrWriter.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		return spinner
	}
	return lines
}

func (p *progress) run() {
	defer close(p.ended)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-p.ending:
			return
		case <-tick.C:
			p.mu.Lock()
			p.show()
			p.mu.Unlock()
		}
	}
}

// show draws or prints the phase, if it is time. The lock is held.
func (p *progress) show() {
	took := time.Since(p.began)
	if took < patience || p.phase == "" {
		return
	}
	if p.mode == lines {
		if p.told != p.phase {
			p.told = p.phase
			fmt.Fprintf(p.w, "%s …\n", p.phase)
		}
		return
	}
	p.turn++
	fmt.Fprintf(p.w, "\r\x1b[K%c %s, %d s", `|/-\`[p.turn%4], p.phase, int(took.Seconds()))
	p.drawn = true
}

// say names what is being done now.
func (p *progress) say(phase string) {
	phase = printable(strings.Join(strings.Fields(phase), " "))
	if len(phase) > 100 {
		phase = phase[:100]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = phase
}

// Write lets another line pass.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.w.Write(b)
}

func (p *progress) clear() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

// stop ends the line. It may be called twice.
func (p *progress) stop() {
	p.mu.Lock()
	select {
	case <-p.ending:
	default:
		close(p.ending)
	}
	p.clear()
	p.phase = ""
	p.mu.Unlock()
	<-p.ended
}
