package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/statefile"
)

// childEnv makes this test binary do one operation, with the library, and end:
// a process that can be killed in the middle of it.
const childEnv = "CTCTL_TEST_CHILD"

type childRequest struct {
	Op, Name, Snap string
	State, Run     string
	CRIU           string
	Deadline       time.Duration // of a dump
	Template       string
	Command        []string
	Address        string
	DiskBytes      int64
	MemoryBytes    int64
	UserNS         string
	Changes        changes       // of set
	For            time.Duration // of set: how long they last; 0 saves them
	Linger         time.Duration // of set: until it ends
}

// childReply is what the operation came to.
type childReply struct {
	Done  []string
	Error string
	Kind  string // dump, restore, busy or other, when there is an error
}

func init() {
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(childMain(text))
	}
}

func childMain(text string) int {
	os.Unsetenv(childEnv)
	var req childRequest
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var reply childReply
	done, err := req.do(context.Background())
	reply.Done = done
	if err != nil {
		reply.Error, reply.Kind = err.Error(), kindOf(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(reply); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

func kindOf(err error) string {
	var restore *checkpoint.RestoreError
	var dump *checkpoint.DumpError
	switch {
	case errors.As(err, &restore):
		return "restore"
	case errors.As(err, &dump):
		return "dump"
	case errors.Is(err, statefile.ErrBusy):
		return "busy"
	}
	return "other"
}

func (r childRequest) do(ctx context.Context) (done []string, err error) {
	h, err := host.Open(ctx, host.Options{StateRoot: r.State, RunRoot: r.Run, CRIU: r.CRIU})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	h.Checkpoints.Deadline = r.Deadline
	switch r.Op {
	case "create":
		return nil, r.create(ctx, h)
	case "start":
		return nil, h.Containers.Start(ctx, r.Name)
	case "stop":
		return nil, h.Containers.Stop(ctx, r.Name, container.StopOptions{Timeout: 2 * time.Second})
	case "destroy":
		return nil, h.Destroy(ctx, r.Name, true)
	case "snapshot":
		_, err = h.Checkpoints.Snapshot(ctx, r.Name, checkpoint.SnapshotOptions{Name: r.Snap})
	case "forget":
		err = h.Checkpoints.Delete(ctx, r.Name, r.Snap)
	case "rollback":
		_, err = h.Checkpoints.Rollback(ctx, r.Name, r.Snap)
	case "suspend":
		err = h.Checkpoints.Suspend(ctx, r.Name)
	case "resume":
		err = h.Checkpoints.Resume(ctx, r.Name)
	case "repair":
		return h.Repair(ctx, r.Name)
	case "import":
		_, err = h.Templates.Import(ctx, r.Template, r.Command[0])
	case "set":
		return nil, r.set(ctx, h)
	case "detach":
		err = h.Detach(ctx)
	default:
		err = fmt.Errorf("no operation %q", r.Op)
	}
	return nil, err
}

func (r childRequest) create(ctx context.Context, h *host.Host) error {
	o := container.CreateOptions{Template: r.Template, Command: r.Command, UserNS: r.UserNS}
	if r.Address != "" {
		addr, err := netip.ParsePrefix(r.Address)
		if err != nil {
			return err
		}
		o.Addresses = []netip.Prefix{addr}
	}
	o.Limits.DiskBytes, o.Limits.MemoryBytes = r.DiskBytes, r.MemoryBytes
	_, err := h.Containers.Create(ctx, r.Name, o)
	return err
}

func (r childRequest) set(ctx context.Context, h *host.Host) error {
	ch := container.Change{Edit: r.Changes.edit, For: r.For, NoProbe: true}
	if r.For > 0 {
		ch.Scope = container.Runtime
	}
	_, err := h.Containers.Set(ctx, r.Name, ch)
	time.Sleep(r.Linger)
	return err
}

// child is one process with an operation.
type child struct {
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	req       childRequest
	began     time.Time
	ended     chan struct{} // then the rest is set
	waited    error
	took      time.Duration
}

// spawn starts an operation.
func (s *site) spawn(ctx context.Context, req childRequest) (*child, error) {
	req.State, req.Run = s.state, s.run
	text, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	c := &child{req: req, ended: make(chan struct{}), began: time.Now()}
	c.cmd = exec.CommandContext(ctx, "/proc/self/exe")
	c.cmd.Args = []string{"ctctl"}
	c.cmd.WaitDelay = time.Second
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errs
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		c.waited = c.cmd.Wait()
		c.took = time.Since(c.began)
		close(c.ended)
	}()
	return c, nil
}

// reply waits for the operation to end and returns what it said. The error is
// for one that said nothing, such as one that was killed.
func (c *child) reply() (childReply, error) {
	<-c.ended
	var r childReply
	if c.waited != nil {
		return r, fmt.Errorf("%s: %w\n%s", c.req.Op, c.waited, c.errs.String())
	}
	if err := json.Unmarshal(c.out.Bytes(), &r); err != nil {
		return r, fmt.Errorf("%s: %w: %q", c.req.Op, err, c.out.String())
	}
	return r, nil
}

func (c *child) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

func (r childReply) String() string {
	if r.Error != "" {
		return r.Kind + ": " + r.Error
	}
	if len(r.Done) > 0 {
		return strings.Join(r.Done, "; ")
	}
	return "done"
}
