package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ConsoleOptions says who attaches to a console.
type ConsoleOptions struct {
	Stdin  io.Reader // what is typed; nil: look only
	Stdout io.Writer // what has been shown, up to 64 KiB, and what is shown from now on
	// Resize delivers window sizes, rows and columns; nil if there is no window.
	Resize <-chan [2]uint16
}

// inputLinger is how long output is still read when what is typed has ended.
const inputLinger = 300 * time.Millisecond

// Console attaches to the console of a running container until ctrl-] or
// ctrl-a q is typed, the input ends, or the container does. It answers whether
// the container is still there. Errors: ErrState, ErrNoConsole.
func (m *Manager) Console(ctx context.Context, name string, o ConsoleOptions) (detached bool, err error) {
	defer wrapOp("console", name, &err)
	info, err := m.get(name)
	if err != nil {
		return false, err
	}
	if info.Status != Running && info.Status != Paused {
		return false, &StateError{Op: "console", Status: info.Status, Need: []Status{Running, Paused}}
	}
	conn, err := dialUnix(filepath.Join(m.runDir(info.Config.UID), "console.sock"))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNoConsole, err)
	}
	defer conn.Close()
	return attachTo(ctx, conn, o)
}

// attachTo relays between a console's socket and the caller.
func attachTo(ctx context.Context, conn net.Conn, o ConsoleOptions) (detached bool, err error) {
	shown, quiet := make(chan error, 1), make(chan struct{})
	go func() { // ends with the connection
		defer close(quiet)
		_, err := io.Copy(o.Stdout, conn)
		shown <- err
	}()
	defer func() {
		conn.Close()
		<-quiet // nothing is written to Stdout after the return
	}()
	typed := make(chan error, 1)
	if o.Stdin != nil {
		go func() { typed <- sendInput(conn, o.Stdin) }() // ends with the input, or at the next key after the connection
	}
	stop := make(chan struct{})
	defer close(stop)
	go sendSizes(conn, o.Resize, stop)
	select {
	case <-ctx.Done():
		return true, ctx.Err()
	case err := <-shown:
		return false, ignoreClosed(err)
	case err := <-typed:
		if errors.Is(err, errDetach) {
			return true, nil
		}
		if err != nil {
			return false, ignoreClosed(err)
		}
	}
	select {
	case <-ctx.Done():
	case <-shown:
	case <-time.After(inputLinger):
	}
	return true, ctx.Err()
}

// ignoreClosed: a container that ends takes its console with it.
func ignoreClosed(err error) error {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func sendSizes(conn net.Conn, sizes <-chan [2]uint16, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			body := binary.BigEndian.AppendUint16(nil, s[0])
			if sendFrame(conn, frameSize, binary.BigEndian.AppendUint16(body, s[1])) != nil {
				return // the reading side tells
			}
		}
	}
}

func sendInput(conn net.Conn, in io.Reader) error {
	var keys detachKeys
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		out, detach := keys.filter(buf[:n])
		if len(out) > 0 {
			if err := sendFrame(conn, frameInput, out); err != nil {
				return err
			}
		}
		switch {
		case detach:
			return errDetach
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// sendFrame writes one frame; body is shorter than 64 KiB. One write, so that
// frames of two goroutines do not mix.
func sendFrame(conn net.Conn, kind byte, body []byte) error {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(body)))
	_, err := conn.Write(append(b, body...))
	return err
}

var errDetach = errors.New("detach")

const (
	keyDetach = 0x1d // ctrl-]
	keyPrefix = 0x01 // ctrl-a, then q; typed twice it goes in once
)

// detachKeys looks for the keys that end the session.
type detachKeys struct {
	prefix bool // ctrl-a was the last key
}

// filter returns what goes in, and whether the session is to end behind it.
func (k *detachKeys) filter(in []byte) (out []byte, detach bool) {
	for _, b := range in {
		switch {
		case k.prefix && (b == 'q' || b == 'Q'):
			return out, true
		case k.prefix && b == keyPrefix:
			k.prefix = false
			out = append(out, b)
		case b == keyDetach:
			return out, true
		case b == keyPrefix:
			k.prefix = true
		default:
			if k.prefix {
				out = append(out, keyPrefix)
				k.prefix = false
			}
			out = append(out, b)
		}
	}
	return out, false
}
