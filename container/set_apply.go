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
func (l *Locked) promise(ctx context.Context, c change) error {
	return l.beginAs(ctx, l.intent(c), newOutside(c.from.Network, c.to.Network), newOutside(l.Config.Network, c.saved.Network))
}

// BeginAs is Begin of an operation that gives the container another configuration.
// It refuses what another container of this host has by now: ErrTaken.
func (l *Locked) BeginAs(ctx context.Context, in Intent, saved Config, overlay []Layer) error {
	to, err := overlaid(saved, overlay)
	if err != nil {
		return err
	}
	in.Network = &to.Network
	return l.beginAs(ctx, in, newOutside(l.Effective().Network, to.Network), newOutside(l.Config.Network, saved.Network))
}

func (l *Locked) beginAs(ctx context.Context, in Intent, added ...Network) (err error) {
	var needles []string
	for _, n := range added {
		needles = append(needles, needlesFor(n)...)
	}
	if len(needles) == 0 {
		return l.Begin(in)
	}
	lock, err := statefile.WaitLock(ctx, filepath.Join(l.m.StateRoot, "host.lock"), in.Op+" "+l.Config.Name)
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
	return l.Begin(in)
}

func (l *Locked) intent(c change) Intent {
	// WasUp would make its clients wait for it when it ends meanwhile.
	in := Intent{Op: "set", Paused: c.status == Paused, Hostname: c.to.Hostname, Network: &c.to.Network}
	if digest := digestOf(c.saved); digest != digestOf(l.Config) { // else the state without this intent is what counts
		in.Config, in.Overlay = digest, c.overlay
	}
	return in
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
	used, err := l.DiskBytes(ctx, limit)
	if err != nil || used <= limit {
		return err
	}
	least := used>>20 + 1
	return fmt.Errorf("%w: disk %s wanted, %d MiB in use, snapshots included; delete some, or set at least %dM",
		quota.ErrBelowUsage, quota.FormatBytes(limit), used>>20, least+least/16)
}

// DiskBytes is what is charged to the container, snapshots included, where a limit
// is to be set; 0 with the limit 0, which is none. Errors: ErrNoDiskLimit.
func (l *Locked) DiskBytes(ctx context.Context, limit int64) (int64, error) {
	if limit == 0 {
		return 0, nil
	}
	limiter, ok := l.m.Volumes.(storage.Limiter)
	if !ok {
		return 0, ErrNoDiskLimit
	}
	if f, ok := l.m.Volumes.(storage.Flusher); ok { // what is dirty is not charged yet
		if err := f.Flush(ctx, l.State.Volume); err != nil {
			return 0, err
		}
	}
	u, err := limiter.Usage(ctx, uint64(l.Config.CTID))
	if errors.Is(err, storage.ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrNoDiskLimit, err)
	}
	if err != nil {
		return 0, fmt.Errorf("disk limit: %w", err)
	}
	return u.Bytes, nil
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
// interrupted: the new one if that had been written. What was not to be saved is
// made in one step with forgetting the intent, so that it has not come to be.
func (l *Locked) settleSet(ctx context.Context) error {
	in := l.State.Intent
	var err error
	if digestOf(l.Config) != in.Config {
		err = l.putBack(in.Files) // whoever is root inside may see to it that it can't be
	} else if len(l.State.Overlay) > 0 { // else it has been started anew since
		l.State.Overlay = in.Overlay
	}
	if err := l.tidy(ctx); err != nil {
		return err
	}
	if err := errors.Join(err, l.enforce(ctx, in)); err != nil {
		if ctx.Err() != nil {
			return err
		}
		// More may be in use by now than the limit was before, or a directory be where
		// a file was. That must not keep anybody from stopping the container; repair
		// tries the limits and the network again, and says it.
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
