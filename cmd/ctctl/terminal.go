package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// rawTerminal passes keys through unchanged, ctrl-C too, until restore is called.
func rawTerminal(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("take the terminal: %w", err)
	}
	return func() {
		if err := term.Restore(int(f.Fd()), old); err != nil {
			fmt.Fprintln(os.Stderr, "ctctl: give the terminal back:", err)
		}
	}, nil
}

// windowSizes delivers the terminal's size, rows and columns, now and at every
// change, until stop is called.
func windowSizes(f *os.File) (sizes <-chan [2]uint16, stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	out := make(chan [2]uint16, 1)
	quit := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if cols, rows, err := term.GetSize(int(f.Fd())); err == nil {
				select {
				case out <- [2]uint16{uint16(rows), uint16(cols)}:
				case <-quit:
					return
				}
			}
			select {
			case <-changed:
			case <-quit:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(changed)
		close(quit)
		<-ended
	}
}

// crlf writes a line to a terminal that is raw.
func crlf(w io.Writer, text string) { fmt.Fprintf(w, "\r\n%s\r\n", text) }
