package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// watchTop is the live display.
func (s *session) watchTop(ctx context.Context, out *os.File, screen *topScreen) (err error) {
	restore, err := rawTerminal(os.Stdin)
	if err != nil {
		return err
	}
	defer restore()
	if _, err := out.WriteString(topEnter); err != nil {
		return err
	}
	defer func() {
		_, werr := out.WriteString(topLeave)
		err = errors.Join(err, werr)
	}()
	var w topWatch
	for now := true; ctx.Err() == nil; {
		if now || screen.due() <= 0 {
			screen.views, screen.err = w.look(ctx, s)
			screen.at = time.Now()
			screen.looks++
		}
		if err := screen.show(out); err != nil {
			return err
		}
		var quit bool
		if now, quit, err = screen.typed(os.Stdin); err != nil || quit {
			return err
		}
	}
	return nil
}

// show draws for the size that the terminal has now.
func (s *topScreen) show(out *os.File) error {
	cols, rows, err := term.GetSize(int(out.Fd()))
	if err != nil {
		return fmt.Errorf("size of the terminal: %w", err)
	}
	s.cols, s.rows = cols, rows
	b, err := s.draw()
	if err == nil {
		_, err = out.Write(b)
	}
	return err
}

// topPatience is how long a change of the terminal's size may go unnoticed.
const topPatience = 250 * time.Millisecond

// typed waits for keys, but not longer than until the next look.
func (s *topScreen) typed(in *os.File) (now, quit bool, err error) {
	most := max(0, min(s.due(), topPatience))
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}, int(most.Milliseconds()))
	if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("wait for keys: %w", err)
	}
	buf := make([]byte, 256)
	n, err = in.Read(buf)
	if err != nil {
		return false, true, nil //nolint:nilerr // the terminal is gone
	}
	for _, k := range keysOf(buf[:n]) {
		look, end := s.press(k)
		now, quit = now || look, quit || end
	}
	return now, quit, nil
}
