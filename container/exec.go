package container

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
)

// ExecOptions says what to run inside a running container, and how.
type ExecOptions struct {
	Args   []string
	User   string // name or id, with :group; root if empty
	Cwd    string
	Env    []string
	TTY    bool
	Stdin  io.Reader // nil: empty
	Stdout io.Writer
	Stderr io.Writer
	// Resize delivers window sizes, with TTY.
	Resize <-chan [2]uint16
}

// Exec runs a command in every namespace and cgroup of a running container and
// returns its exit code as a shell gives it. The command is a child of this
// process: it is not part of a snapshot, and a rollback or suspend ends it.
// Errors: ErrState, runc.CommandError (125, 126, 127).
func (m *Manager) Exec(ctx context.Context, name string, o ExecOptions) (code int, err error) {
	defer wrapOp("exec", name, &err)
	info, err := m.get(name)
	if err != nil {
		return -1, err
	}
	if info.Status != Running {
		return -1, &StateError{Op: "exec", Status: info.Status, Need: []Status{Running}}
	}
	c, err := runc.Load(filepath.Join(m.runDir(info.Config.UID), "runtime"), info.Config.UID)
	if err != nil {
		return -1, err
	}
	cwd := o.Cwd
	if cwd == "" {
		cwd = info.Config.Workdir
	}
	p, err := c.Exec(runc.Command{
		Args: o.Args, User: o.User, Cwd: cwd, Env: append(append([]string{}, info.Config.Env...), o.Env...), System: info.Config.System(),
		TTY: o.TTY, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr,
	})
	if err != nil {
		return -1, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(os.Kill) }) // it may just have ended
	defer stop()
	if o.TTY {
		return relay(p, o)
	}
	return p.Wait()
}

// relay copies between a command's pty and the caller until the command ends and
// its last output is read.
func relay(p *runc.Process, o ExecOptions) (int, error) {
	out := make(chan struct{})
	go func() {
		defer close(out)
		_, _ = io.Copy(o.Stdout, p.Console) // ends with EIO when the last process has closed the pty
	}()
	if o.Stdin != nil {
		go func() { _, _ = io.Copy(p.Console, o.Stdin) }() // ends with the pty, or with the caller's input
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case s, ok := <-o.Resize:
				if !ok || resize(p.Console, s[0], s[1]) != nil {
					return
				}
			}
		}
	}()
	code, err := p.Wait()
	close(ended)
	select {
	case <-out:
	case <-time.After(time.Second): // something the command left behind holds the pty
	}
	p.Console.Close()
	<-out
	return code, err
}

// procStatus reads one field of /proc/PID/status; "" when there is none.
func procStatus(pid int, field string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == field {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
