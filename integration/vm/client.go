package vmrig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ctctl/ctctl/integration/vm/wire"
)

const (
	// defaultTimeout bounds a command that has no time limit of its own: an emulated
	// machine on one that is busy with other things takes its time.
	defaultTimeout = 10 * time.Minute
	sendTimeout    = 30 * time.Second
	// helloTimeout is for one try: what is sent to a guest that boots is lost.
	helloTimeout = 2 * time.Second
)

// Command is what to run in a guest.
type Command struct {
	Args    []string
	Env     []string // in addition to a root shell's
	Dir     string
	Stdin   string
	Timeout time.Duration // 0: ten minutes
	Output  io.Writer     // gets stdout and stderr while they come; may be nil
}

// Result is how a command ended.
type Result struct {
	Code           int // exit code, or 128 + the number of the signal that ended it
	Stdout, Stderr string
	Took           time.Duration
}

// client sends requests through a machine's serial port and hands out replies.
type client struct {
	conn  net.Conn
	ended chan struct{} // closed when nothing comes any more

	sending sync.Mutex
	mu      sync.Mutex
	next    uint64
	calls   map[uint64]*call
}

// call is a request that waits for its last reply.
type call struct {
	each func(wire.Reply) // every reply with data; called with the client's lock
	last chan wire.Reply
}

// dialGuest connects to the Unix socket that is the port's outer end.
func dialGuest(ctx context.Context, socket string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, calls: map[uint64]*call{}, ended: make(chan struct{})}
	// A machine in an earlier state may answer what it was asked then: numbers are
	// not used again.
	c.next = uint64(time.Now().UnixNano()) //nolint:gosec // after 1970
	go c.receive()
	return c, nil
}

func (c *client) receive() {
	defer close(c.ended)
	// It only ends when the connection does, and whoever waits is told by ended.
	_ = wire.Receive(c.conn, c.deliver)
}

func (c *client) deliver(r wire.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.ID == 0 {
		for id, waiting := range c.calls {
			delete(c.calls, id)
			waiting.last <- wire.Reply{Done: true, Error: "the machine has booted anew meanwhile"}
		}
		return
	}
	waiting := c.calls[r.ID]
	if waiting == nil {
		return // nobody waits any more
	}
	if len(r.Data) > 0 {
		waiting.each(r)
	}
	if r.Done {
		delete(c.calls, r.ID)
		waiting.last <- r
	}
}

// close ends the connection and waits for the receiver.
func (c *client) close() error {
	err := c.conn.Close()
	<-c.ended
	return err
}

// do sends a request, calls each with every reply that carries data, and returns
// the last one.
func (c *client) do(ctx context.Context, r wire.Request, each func(wire.Reply)) (wire.Reply, error) {
	waiting := &call{each: each, last: make(chan wire.Reply, 1)}
	r.ID = c.begin(waiting)
	defer c.end(r.ID)
	if err := c.send(r); err != nil {
		return wire.Reply{}, err
	}
	select {
	case <-ctx.Done():
		if r.Op == wire.Run {
			// Best effort: a guest that is in pieces may not get it.
			_ = c.send(wire.Request{ID: c.number(), Op: wire.Kill, Target: r.ID})
		}
		return wire.Reply{}, fmt.Errorf("%w: %s: %w", ErrNoAnswer, r.Op, context.Cause(ctx))
	case <-c.ended:
		return wire.Reply{}, fmt.Errorf("%w: %s: its port is closed", ErrNoAnswer, r.Op)
	case last := <-waiting.last:
		if last.ID != r.ID {
			return last, fmt.Errorf("%w: %s: %s", ErrNoAnswer, r.Op, last.Error)
		}
		if last.Error != "" {
			return last, errors.New(last.Error)
		}
		return last, nil
	}
}

func (c *client) begin(waiting *call) uint64 {
	id := c.number()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[id] = waiting
	return id
}

func (c *client) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	return c.next
}

// end makes sure that nothing is delivered any more.
func (c *client) end(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.calls, id)
}

func (c *client) send(r wire.Request) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	// A guest that stands still reads nothing.
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	return wire.Send(c.conn, r)
}

func ignore(wire.Reply) {}

// hello returns the boot id of the guest as soon as it answers.
func (c *client) hello(ctx context.Context) (string, error) {
	for {
		try, cancel := context.WithTimeout(ctx, helloTimeout)
		var id string
		_, err := c.do(try, wire.Request{Op: wire.Hello}, func(r wire.Reply) { id = strings.TrimSpace(string(r.Data)) })
		cancel()
		if err == nil || ctx.Err() != nil {
			return id, err
		}
		select {
		case <-c.ended:
			return "", err
		default:
		}
	}
}

// run executes a command. An exit code is no error.
func (c *client) run(ctx context.Context, cmd Command) (Result, error) {
	if cmd.Timeout == 0 {
		cmd.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cmd.Timeout, fmt.Errorf("%s took longer than %v", strings.Join(cmd.Args, " "), cmd.Timeout))
	defer cancel()
	var stdout, stderr bytes.Buffer
	began := time.Now()
	request := wire.Request{Op: wire.Run, Args: cmd.Args, Env: cmd.Env, Dir: cmd.Dir, Data: []byte(cmd.Stdin)}
	last, err := c.do(ctx, request, func(r wire.Reply) {
		to := &stdout
		if r.Stderr {
			to = &stderr
		}
		to.Write(r.Data)
		if cmd.Output != nil {
			// The output is there for people to look at; the result is complete.
			_, _ = cmd.Output.Write(r.Data)
		}
	})
	return Result{last.Code, stdout.String(), stderr.String(), time.Since(began)}, err
}

// put writes a file of the guest.
func (c *client) put(ctx context.Context, r io.Reader, path string, mode os.FileMode) error {
	buf := make([]byte, wire.Chunk)
	for at := int64(0); ; {
		n, err := io.ReadFull(r, buf)
		if at == 0 || n > 0 {
			piece := wire.Request{Op: wire.Write, Path: path, Mode: uint32(mode.Perm()), Offset: at, Data: buf[:n]}
			if _, err := c.do(ctx, piece, ignore); err != nil {
				return fmt.Errorf("write %s: %w", path, err)
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// get copies a file of the guest to w.
func (c *client) get(ctx context.Context, path string, w io.Writer) error {
	var failed error
	_, err := c.do(ctx, wire.Request{Op: wire.Read, Path: path}, func(r wire.Reply) {
		if _, err := w.Write(r.Data); failed == nil {
			failed = err
		}
	})
	return errors.Join(err, failed)
}
