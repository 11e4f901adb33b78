package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/undo"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// promise refuses what another container has, and records the intent. Of two that
// want the same address at the same time one sees the other's intent.
func (l *Locked) promise(ctx context.Context, c change) (err error) {
	added := []Network{newOutside(c.from.Network, c.to.Network), newOutside(l.Config.Network, c.saved.Network)}
	needles := append(needlesFor(added[0]), needlesFor(added[1])...)
	if len(needles) == 0 {
		return l.intend(c)
	}
	lock, err := statefile.WaitLock(ctx, filepath.Join(l.m.StateRoot, "host.lock"), "set "+l.Config.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	taken, err := l.m.taken(l.Config.Name, needles...)
	if err != nil {
		return err
	}
	for _, n := range added {
		if err := taken.refuse(n); err != nil {
			return err
		}
	}
	return l.intend(c)
}

func (l *Locked) intend(c change) error {
	// WasUp would make its clients wait for it when it ends meanwhile.
	return l.Begin(Intent{
		Op: "set", Paused: c.status == Paused, Config: digestOf(c.saved), Overlay: c.overlay, Hostname: c.to.Hostname,
		Network: &c.to.Network,
	})
}

// apply makes the kernel and the container's files hold what c leads to; undos
// gets how to take it back.
func (l *Locked) apply(ctx context.Context, c change, undos *undo.Stack) error {
	steps := []struct {
		name string
		do   func(ctx context.Context, c change) error
	}{
		{"limits", l.applyLimits},
		{"disk", l.applyDisk},
		{"network", l.applyNetwork},
		{"hostname", l.applyHostname},
	}
	for _, s := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		// Pushed before: a step that fails may have come half way.
		undos.Push(s.name, func(ctx context.Context) error { return s.do(ctx, c.back()) })
		if err := s.do(ctx, c); err != nil {
			return err
		}
		l.m.trace("set."+s.name, start)
	}
	return l.applyFiles(c, undos)
}

// back is the change that undoes c.
func (c change) back() change {
	c.from, c.to = c.to, c.from
	c.noProbe = true
	return c
}

func (l *Locked) applyLimits(_ context.Context, c change) error {
	was, is := inCgroup(c.from.Limits), inCgroup(c.to.Limits)
	if !c.up() || reflect.DeepEqual(was, is) {
		return nil
	}
	g, err := l.Group()
	if err != nil {
		return err
	}
	return g.Apply(c.to.Limits)
}

// inCgroup is the part of limits that the container's cgroup holds.
func inCgroup(l quota.Limits) quota.Limits {
	l.DiskBytes, l.DiskWarnPercent = 0, 0
	return l
}

// checkDisk refuses a limit below what there is.
func (l *Locked) checkDisk(ctx context.Context, c change) error {
	limit := c.to.Limits.DiskBytes
	if limit == c.from.Limits.DiskBytes {
		return nil
	}
	limiter, ok := l.m.Volumes.(storage.Limiter)
	if !ok && limit > 0 {
		return fmt.Errorf("%w: disk limits need a btrfs pool", ErrNoSupport)
	}
	if limit == 0 || !ok {
		return nil
	}
	if f, ok := l.m.Volumes.(storage.Flusher); ok { // what is dirty is not charged yet
		if err := f.Flush(ctx, l.State.Volume); err != nil {
			return err
		}
	}
	u, err := limiter.Usage(ctx, uint64(l.Config.CTID))
	if err != nil {
		return fmt.Errorf("disk limit: %w", err)
	}
	if u.Bytes > limit {
		least := u.Bytes>>20 + 1
		return fmt.Errorf("%w: disk %s wanted, %d MiB in use, snapshots included; delete some, or set at least %dM",
			quota.ErrBelowUsage, quota.FormatBytes(limit), u.Bytes>>20, least+least/16)
	}
	return nil
}

func (l *Locked) applyDisk(ctx context.Context, c change) error {
	if c.from.Limits.DiskBytes == c.to.Limits.DiskBytes {
		return nil
	}
	return l.setDiskLimit(ctx, c.to.Limits.DiskBytes)
}

func (l *Locked) applyHostname(_ context.Context, c change) error {
	if !c.up() || c.from.Hostname == c.to.Hostname {
		return nil
	}
	return runc.SetHostname(c.run.PID, c.to.Hostname)
}

// settleSet makes the kernel hold what the configuration says after a Set that was
// interrupted: the new one if that had been written.
func (l *Locked) settleSet(ctx context.Context) error {
	in := l.State.Intent
	if digestOf(l.Config) == in.Config {
		l.State.Overlay = in.Overlay
	} else if err := l.putBack(in.Files); err != nil {
		return err
	}
	if err := l.tidy(ctx); err != nil {
		return err
	}
	if err := l.enforce(ctx, in); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// More may be in use by now than the limit was before. That must not keep
		// anybody from stopping the container; repair tries again, and says it.
		l.m.log().Warn("not all is as configured", "container", l.Config.Name, "err", err)
	}
	return l.finish()
}

// enforce makes the kernel hold the configuration in effect, whatever it holds. It
// goes on after an error, and returns all of them.
func (l *Locked) enforce(ctx context.Context, in *Intent) error {
	status, run, err := l.Status()
	if err != nil {
		return err
	}
	now := l.Effective()
	c := change{status: status, run: run, from: now, to: now}
	if in.Network != nil { // which the kernel may have
		c.from.Network = *in.Network
	}
	errs := []error{l.setDiskLimit(ctx, now.Limits.DiskBytes), l.plug(ctx, c)}
	if c.up() {
		g, err := l.Group()
		if err == nil {
			err = g.Apply(now.Limits)
		}
		errs = append(errs, err)
		if in.Hostname != now.Hostname { // what was set inside stays otherwise
			errs = append(errs, runc.SetHostname(run.PID, now.Hostname))
		}
	}
	return errors.Join(errs...)
}
