package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// settle finishes or undoes what an interrupted operation left, and clears what
// a run that ended without its supervisor left. It runs under the lock, at the
// beginning of every operation.
func (l *Locked) settle(ctx context.Context) error {
	in := l.State.Intent
	if in == nil {
		if err := l.tidy(ctx); err != nil {
			return err
		}
		return l.settleOverlay(ctx)
	}
	l.m.log().Info("settle an interrupted operation", "container", l.Config.Name, "op", in.Op, "step", in.Step)
	switch in.Op {
	case "create", "destroy":
		if before := l.m.Settle["destroy"]; before != nil {
			if err := before(ctx, l); err != nil {
				return err
			}
		}
		if err := l.erase(ctx); err != nil {
			return err
		}
		return fmt.Errorf("%w: its interrupted %s was settled", ErrNotFound, in.Op)
	case "start":
		// A supervisor may still be on its way; it ends by itself, its caller is gone.
		if err := l.awaitLaunch(ctx); err != nil {
			return err
		}
		if err := l.tidy(ctx); err != nil {
			return err
		}
		return l.finish()
	case "set":
		if err := l.settleSet(ctx); err != nil {
			return err
		}
		return l.settleOverlay(ctx)
	}
	settle, ok := l.m.Settle[in.Op]
	if !ok {
		return fmt.Errorf("%w: an interrupted %q was left by another version of this program", ErrNoSupport, in.Op)
	}
	return settle(ctx, l)
}

// settleOverlay takes back what was changed for a while that is over. What can't be
// stays as it is, and is tried again.
func (l *Locked) settleOverlay(ctx context.Context) error {
	err := l.expire(ctx)
	if err == nil || errors.Is(err, ErrUndo) {
		return err
	}
	l.m.log().Warn("a change that is over stays for now", "container", l.Config.Name, "err", err)
	return nil
}

// tidy makes the run root and the kernel agree with whether init lives.
func (l *Locked) tidy(ctx context.Context) error {
	run, err := l.m.readRun(l.Config.UID)
	if err != nil {
		return err
	}
	if run.Alive() {
		// Whoever ends init on purpose holds the lock: this mark is of one that was killed.
		if err := ignoreAbsent(os.Remove(l.m.leavingFile(l.Config.UID))); err != nil {
			return err
		}
		return l.adopt(ctx)
	}
	if _, err := os.Lstat(l.m.runDir(l.Config.UID)); errors.Is(err, os.ErrNotExist) || l.backingOff() {
		return nil
	}
	return l.End(ctx)
}

// backingOff says that init has ended and its supervisor waits to start it anew.
func (l *Locked) backingOff() bool {
	if _, err := os.Lstat(l.m.backoffFile(l.Config.UID)); err != nil {
		return false
	}
	return locked(l.m.supervisorLock(l.Config.UID))
}

// ending says that init has ended and its supervisor is about to clean up, which
// it does under the container's lock.
func (l *Locked) ending() bool {
	run, err := l.m.readRun(l.Config.UID)
	return err == nil && run != nil && !run.Alive() && locked(l.m.supervisorLock(l.Config.UID))
}

// AwaitLaunch waits for a launch whose caller was killed: when it returns, init
// runs with a record, or nothing of it is left running.
func (l *Locked) AwaitLaunch(ctx context.Context) error { return l.awaitLaunch(ctx) }

// launchGrace bounds how long a launch under way may take.
const launchGrace = 3 * time.Minute

func (l *Locked) awaitLaunch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, launchGrace)
	defer cancel()
	for {
		run, err := l.m.readRun(l.Config.UID)
		if err != nil {
			return err
		}
		alive, err := l.supervised()
		if err != nil {
			return err
		}
		// Who has recorded an init that has ended, or waits to start it anew, waits
		// for the lock that is held here.
		if !alive || run != nil && !run.Alive() || l.backingOff() {
			return nil
		}
		// With a record the supervisor has come to its answer; nobody hears it, so
		// either it ends soon, or the caller heard it before it was killed.
		if run.Alive() && time.Since(run.Started) > time.Second {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: a supervisor that was starting does not come to an end", ErrTimeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// supervised says whether a supervisor of the container lives.
func (l *Locked) supervised() (bool, error) {
	return locked(l.m.supervisorLock(l.Config.UID)), nil
}

// supervisorLeave is how long a supervisor may take to notice init's end.
const supervisorLeave = 10 * time.Second

// awaitSupervisor waits until the supervisor is gone, and kills one that stays
// though its init has ended.
func (l *Locked) awaitSupervisor(ctx context.Context) error {
	path := l.m.supervisorLock(l.Config.UID)
	if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, supervisorLeave)
	defer cancel()
	lock, err := statefile.WaitLock(wait, path, "wait for the supervisor")
	if err == nil {
		return lock.Unlock()
	}
	var busy *statefile.BusyError
	if !errors.As(err, &busy) {
		return err
	}
	if !strings.HasPrefix(busy.Holder.Op, "supervisor of ") || busy.Holder.PID <= 1 {
		return err
	}
	l.m.log().Warn("killing a supervisor that does not leave", "container", l.Config.Name, "pid", busy.Holder.PID)
	if err := ignoreGone(unix.Kill(busy.Holder.PID, unix.SIGKILL)); err != nil {
		return err
	}
	return waitGone(ctx, busy.Holder.PID)
}

// comesBack says that the container's clients are to be left in silence rather than
// with errors, as it is going to answer them again.
func (l *Locked) comesBack() bool {
	return l.State.Suspended != "" || l.State.Intent != nil && l.State.Intent.WasUp
}

// sweep removes what a run that has ended left: tasks, cgroups, links, files.
func (l *Locked) sweep(ctx context.Context) error {
	c := l.Config
	g, err := quota.Open(c.CgroupName())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	spec := l.spec()
	start := time.Now()
	err = errors.Join(g.KillAll(ctx), g.Remove(ctx))
	l.m.trace("sweep.cgroup", start)
	start = time.Now()
	err = errors.Join(err, netns.Leave(ctx, l.Effective().netConfig(), l.comesBack()))
	l.m.trace("sweep.network", start)
	return errors.Join(err, runc.Forget(spec.StateDir, spec.ID), statefile.RemoveTree(l.m.runDir(c.UID)))
}

// erase removes a container and everything of it. Idempotent.
func (l *Locked) erase(ctx context.Context) error {
	l.State.Suspended = ""
	if err := l.End(ctx); err != nil {
		return err
	}
	if err := l.deleteVolumes(ctx); err != nil {
		return err
	}
	// Without a configuration the rest is debris, whatever a kill leaves of it.
	if err := ignoreAbsent(os.Remove(l.m.configFile(l.Config.Name))); err != nil {
		return err
	}
	return statefile.RemoveTree(l.m.dir(l.Config.Name))
}
