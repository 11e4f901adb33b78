package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// with runs do on a locked container and lets it go.
func (m *Manager) with(ctx context.Context, op, name string, do func(*Locked) error) (err error) {
	defer wrapOp(op, name, &err)
	l, err := m.Lock(ctx, name, op)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	return do(l)
}

// Start starts a stopped container. Errors: ErrState, ErrDied, netns.ErrAddressInUse,
// runc.CommandError.
func (m *Manager) Start(ctx context.Context, name string) error {
	return m.with(ctx, "start", name, func(l *Locked) error { return l.start(ctx) })
}

func (l *Locked) start(ctx context.Context) error {
	if _, _, err := l.Require("start", Stopped); err != nil {
		return err
	}
	if err := l.SetDiskLimit(ctx); err != nil {
		return err
	}
	l.State.LastExit, l.State.Overlay = nil, nil // a cold start takes the saved configuration
	if err := l.begin("start"); err != nil {
		return err
	}
	err := l.Launch(ctx, LaunchOptions{})
	return errors.Join(err, l.finish())
}

// begin records the intent of an operation; finish forgets it.
func (l *Locked) begin(op string) error {
	l.State.Intent = &Intent{Op: op, Started: time.Now().UTC()}
	return l.SaveState()
}

func (l *Locked) finish() error {
	l.State.Intent = nil
	return l.SaveState()
}

// StopOptions says how patient Stop is.
type StopOptions struct {
	Timeout time.Duration // until it is killed; 0: the configured one
}

// Stop asks init to end, and kills it when it does not in time.
func (m *Manager) Stop(ctx context.Context, name string, o StopOptions) error {
	return m.with(ctx, "stop", name, func(l *Locked) error {
		if l.backingOff() { // stopped, but about to be restarted
			return l.endForGood(ctx)
		}
		if _, _, err := l.Require("stop", Running, Paused); err != nil {
			return err
		}
		return l.Stop(ctx, o)
	})
}

// Stop is Manager.Stop on a container that is held.
func (l *Locked) Stop(ctx context.Context, o StopOptions) error {
	sig, err := l.Config.stopSignal()
	if err != nil {
		return err
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = l.Config.stopTimeout()
	}
	run, err := l.leaving()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = l.ask(ctx, run, sig)
	if err == nil {
		err = waitGone(ctx, run.PID)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		// Interrupted: the container was asked, and is left to it and its supervisor.
		return errors.Join(err, ignoreAbsent(os.Remove(l.m.leavingFile(l.Config.UID))))
	}
	return l.endForGood(context.WithoutCancel(ctx))
}

// leaving tells the supervisor that init's end is wanted.
func (l *Locked) leaving() (*Run, error) {
	run, err := l.m.readRun(l.Config.UID)
	if err != nil {
		return nil, err
	}
	if run == nil {
		return nil, ErrDied
	}
	return run, os.WriteFile(l.m.leavingFile(l.Config.UID), nil, 0o600)
}

// ask sends the stop signal. The kernel drops a signal that a namespace's init
// has no handler for (pid_namespaces(7)); the other processes then get it
// instead, so that they can end in order.
func (l *Locked) ask(ctx context.Context, run *Run, sig syscall.Signal) error {
	g, err := quota.Open(l.Config.CgroupName())
	if err != nil {
		return err
	}
	if err := g.Thaw(); err != nil {
		return err
	}
	takes := false
	if sig == 0 {
		init := program(run.PID)
		if init == "" || init == "systemd-shutdown" { // it has just ended, or is about to
			return nil
		}
		sig = usualStop(l.Config.System(), init)
		takes = l.Config.System() // an init that is known to
		if init == "systemd" {
			awaitHandler(ctx, run.PID, sig)
		}
	}
	if sig == 0 {
		return l.powerOff(ctx)
	}
	if takes || catches(run.PID, sig) {
		return ignoreGone(unix.Kill(run.PID, sig))
	}
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if pid == run.PID {
			continue
		}
		if err := ignoreGone(unix.Kill(pid, sig)); err != nil {
			return err
		}
	}
	if len(pids) <= 1 {
		return ignoreGone(unix.Kill(run.PID, unix.SIGKILL))
	}
	return l.killWhenAlone(ctx, g, run)
}

// powerOff runs poweroff(8) inside, for as long as ctx lasts; its own result does
// not matter, as Stop waits for init's end.
func (l *Locked) powerOff(ctx context.Context) error {
	c, err := l.Runtime()
	if err != nil {
		return err
	}
	p, err := c.Exec(runc.Command{Args: []string{"/sbin/poweroff"}, System: true})
	var missing *runc.CommandError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Signal(unix.SIGKILL) }) // it may just have ended
	defer stop()
	_, err = p.Wait()
	return err
}

// aloneGrace is how long the processes of a command that does not handle the
// stop signal have to end.
const aloneGrace = 10 * time.Second

// killWhenAlone ends an init that ignores the stop signal once its children have
// ended.
func (l *Locked) killWhenAlone(ctx context.Context, g quota.Group, run *Run) error {
	for end := time.Now().Add(aloneGrace); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		pids, err := g.PIDs()
		if err != nil {
			return err
		}
		if len(pids) <= 1 {
			break
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // the admin thought better of it
	}
	return ignoreGone(unix.Kill(run.PID, unix.SIGKILL))
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// catches reads whether a process gets to know of sig: it has a handler, or blocks
// it to read it from a signalfd(2) (SigCgt and SigBlk in proc(5)). One that waits in
// sigwait(3) is not recognised: meanwhile the kernel shows the signal as not blocked.
func catches(pid int, sig syscall.Signal) bool {
	for _, field := range []string{"SigCgt", "SigBlk"} {
		mask, err := strconv.ParseUint(procStatus(pid, field), 16, 64)
		if err == nil && mask&(1<<(uint(sig)-1)) != 0 {
			return true
		}
	}
	return false
}

// awaitHandler waits for an init that has just been executed: until it has set itself
// up, the kernel drops the signals that it will take.
func awaitHandler(ctx context.Context, pid int, sig syscall.Signal) {
	for ctx.Err() == nil && startTime(pid) != 0 && !catches(pid, sig) {
		time.Sleep(20 * time.Millisecond)
	}
}

// waitGone waits until a process has ended.
func waitGone(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 20)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return ctx.Err()
}

// endTimeout bounds how long the kernel may take to end a killed container.
const endTimeout = 30 * time.Second

// End kills everything in the container now, waits for its supervisor to leave
// and removes what the run left, but for the silence towards the clients of a
// container that comes back. How init ended becomes LastExit. It is idempotent.
func (l *Locked) End(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	start := time.Now()
	if err := ignoreAbsent(os.WriteFile(l.m.leavingFile(l.Config.UID), nil, 0o600)); err != nil {
		return err
	}
	g, err := quota.Open(l.Config.CgroupName())
	if err != nil {
		return err
	}
	if err := g.KillAll(ctx); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	l.m.trace("end.kill", start)
	if err := l.awaitSupervisor(ctx); err != nil {
		return err
	}
	l.m.trace("end.supervisor", start)
	var exit Exit
	if err := exitSchema.Read(l.m.exitFile(l.Config.UID), &exit); err == nil {
		l.State.LastExit = &exit
		if err := l.SaveState(); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err = l.sweep(ctx)
	l.m.trace("end", start)
	return err
}

// endForGood is End of one that does not come back: what was changed for this run
// only is forgotten.
func (l *Locked) endForGood(ctx context.Context) error {
	err := l.End(ctx)
	if err == nil && len(l.State.Overlay) > 0 {
		l.State.Overlay = nil
		err = l.SaveState()
	}
	return err
}

// Kill sends a signal to init; KILL ends the container at once.
func (m *Manager) Kill(ctx context.Context, name string, sig syscall.Signal) error {
	return m.with(ctx, "kill", name, func(l *Locked) error {
		_, run, err := l.Require("kill", Running, Paused)
		if err != nil {
			return err
		}
		if sig == unix.SIGKILL {
			return l.endForGood(ctx)
		}
		return ignoreGone(unix.Kill(run.PID, sig))
	})
}

// Restart stops a container if it runs, and starts it. One that it has stopped it
// starts though it is interrupted; one that is stopping it leaves stopping.
func (m *Manager) Restart(ctx context.Context, name string, o StopOptions) error {
	return m.with(ctx, "restart", name, func(l *Locked) error {
		s, _, err := l.Require("restart", Running, Paused, Stopped)
		if err != nil {
			return err
		}
		if s != Stopped {
			if err := l.Stop(ctx, o); err != nil {
				return fmt.Errorf("it may end, and is not started again: %w", err)
			}
			ctx = context.WithoutCancel(ctx)
		}
		return l.start(ctx)
	})
}

// freezeTimeout bounds Pause.
const freezeTimeout = 10 * time.Second

// Pause freezes every process; memory and connections stay.
func (m *Manager) Pause(ctx context.Context, name string) error {
	return m.with(ctx, "pause", name, func(l *Locked) error {
		if _, _, err := l.Require("pause", Running); err != nil {
			return err
		}
		g, err := quota.Open(l.Config.CgroupName())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
		defer cancel()
		return g.Freeze(ctx)
	})
}

// Unpause lets a paused container go on.
func (m *Manager) Unpause(ctx context.Context, name string) error {
	return m.with(ctx, "unpause", name, func(l *Locked) error {
		if _, _, err := l.Require("unpause", Paused); err != nil {
			return err
		}
		g, err := quota.Open(l.Config.CgroupName())
		if err != nil {
			return err
		}
		return g.Thaw()
	})
}

func (m *Manager) supervisorLock(uid string) string {
	return filepath.Join(m.runDir(uid), "supervisor.lock")
}
