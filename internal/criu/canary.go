package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sys/unix"
)

// canaryTimeout bounds each of the canary's steps.
const canaryTimeout = 15 * time.Second

// Canary checkpoints and restores a small process tree for real and sees
// that it goes on: two processes with several threads in user, pid, mount and
// network namespaces of their own, a TCP connection between them on lo, a
// pipe and an open file. `criu check` says that all is well on kernels where
// CRIU cannot dump any inet socket; this does not.
//
// dir is an existing directory that may be written to; the canary removes
// what it made in it. The error is an [*Error] when CRIU failed. It takes a
// few hundred milliseconds.
func (e Engine) Canary(ctx context.Context, dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("checkpoint and restore a test process: %w", err)
		}
	}()
	c, err := newCanary(dir)
	if err != nil {
		return err
	}
	// In a private mount namespace nothing can be left mounted below dir
	// when it is removed, whatever happens.
	runErr := c.inMounts(func() error { return c.run(ctx, e) })
	var failed *Error
	if errors.As(runErr, &failed) {
		failed.Log = "" // it goes, and its decisive lines are in the error
	}
	return errors.Join(runErr, statefile.RemoveTree(c.dir))
}

// canary is the caller's side: directories and processes.
type canary struct {
	dir string // holds root/ and images/
}

func newCanary(dir string) (*canary, error) {
	tmp, err := os.MkdirTemp(dir, "criu-canary-")
	if err != nil {
		return nil, err
	}
	c := &canary{dir: tmp}
	err = errors.Join(os.MkdirAll(filepath.Join(c.root(), "proc"), 0o755), os.Mkdir(c.images(), 0o711), c.copyProgram())
	if err != nil {
		return nil, errors.Join(err, statefile.RemoveTree(tmp))
	}
	return c, nil
}

func (c *canary) root() string   { return filepath.Join(c.dir, "root") }
func (c *canary) images() string { return filepath.Join(c.dir, "images") }

// inMounts runs f where the root is a mount point, as that of a restored tree
// must be.
func (c *canary) inMounts(f func() error) error {
	return inPrivateMounts(func() error {
		if err := unix.Mount(c.root(), c.root(), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", c.root(), err)
		}
		return f()
	})
}

func (c *canary) run(ctx context.Context, e Engine) error {
	proc, err := c.start(ctx)
	if err != nil {
		return err
	}
	err = c.waitProgress(ctx, proc.Process.Pid)
	if err == nil {
		_, err = e.Dump(ctx, DumpOptions{
			PID: proc.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true, Deadline: canaryTimeout,
		})
	}
	// After a successful dump it is dead already; ends are errors to Wait.
	killErr := proc.Process.Kill()
	if errors.Is(killErr, os.ErrProcessDone) {
		killErr = nil
	}
	_ = proc.Wait()
	if err = errors.Join(err, killErr); err != nil {
		return err
	}
	return c.restore(ctx, e)
}

// restore brings the tree back, waits until it counts on, and ends it.
func (c *canary) restore(ctx context.Context, e Engine) error {
	if err := MakeReadable(c.images()); err != nil {
		return err
	}
	pid, _, err := e.Restore(ctx, RestoreOptions{
		Images: c.images(), Root: c.root(), OwnNetNS: true, Sibling: true, Deadline: canaryTimeout,
		Notify: func(_ context.Context, ev Event) error {
			if ev.Script == EventSetupNamespaces {
				return loopbackUpIn(ev.PID)
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	// Nothing ran since the dump, so the count in the file is the dump's.
	return errors.Join(c.waitProgress(ctx, pid), reap(pid)) // init's end is the tree's
}

// start runs this program again as the canary.
func (c *canary) start(ctx context.Context) (*exec.Cmd, error) {
	return c.startAs(ctx, canaryArg0, "serve")
}

// startAs runs this program again, in namespaces of its own and with arguments.
// Only uid and gid 0 are mapped, on themselves: that is what the files here
// belong to, and no other id is needed.
func (c *canary) startAs(ctx context.Context, args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(c.root(), "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.WaitDelay = time.Second
	cmd.Args = append([]string{canaryArg0, "init"}, args...)
	cmd.Env = []string{canaryEnv + "=" + c.root(), "GOMAXPROCS=1"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = log, log, log
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:      true,
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: ids, GidMappings: ids,
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start it in namespaces of its own: %w", err)
	}
	return cmd, nil
}

// waitProgress waits until the tree has counted further than now. Counting
// takes the TCP connection, the pipe and the file.
func (c *canary) waitProgress(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
	defer cancel()
	before, err := c.count()
	for err == nil {
		var n int
		// One count may be under way already when a tree stands still.
		if n, err = c.count(); err == nil && n > before+2 {
			return nil
		}
		if !alive(pid) {
			return fmt.Errorf("it ended: %s", c.log())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it stands still at %d: %w: %s", n, ctx.Err(), c.log())
		case <-time.After(time.Millisecond):
		}
	}
	return err
}

// count returns how far the tree has counted; 0 when it has not begun.
func (c *canary) count() (int, error) {
	b, err := readAtMost(filepath.Join(c.root(), canaryCount), 64)
	if errors.Is(err, os.ErrNotExist) || (err == nil && len(b) == 0) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(b)))
}

// alive is false for zombies, too.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The command, in parentheses, may hold anything; the state follows.
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

func (c *canary) log() string {
	b, err := readAtMost(filepath.Join(c.root(), "log"), 64<<10)
	if err != nil {
		return err.Error()
	}
	return escape(strings.TrimSpace(string(b)))
}
