package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// Settlers finish or undo interrupted operations, by name; for
// container.Manager.Settle.
func (m *Manager) Settlers() map[string]func(context.Context, *container.Locked) error {
	return map[string]func(context.Context, *container.Locked) error{
		"snapshot": m.settleSnapshot,
		"suspend":  m.settleSuspend,
		"resume":   m.settleResume,
		"rollback": m.settleRollback,
	}
}

func (m *Manager) settleSnapshot(ctx context.Context, l *container.Locked) error {
	if err := l.Release(ctx, l.State.Intent.Paused); err != nil {
		return err
	}
	if _, err := readManifest(m.dir(l.Config.UID, l.State.Intent.Snapshot)); err == nil {
		l.State.Current = l.State.Intent.Snapshot // it was published
	}
	return m.finish(ctx, l)
}

// finish drops what is left over and records that all is settled.
func (m *Manager) finish(ctx context.Context, l *container.Locked) error {
	_, err := m.collect(ctx, l)
	return errors.Join(err, l.Tidy(ctx), l.Finish())
}

func (m *Manager) settleSuspend(ctx context.Context, l *container.Locked) error {
	if l.State.Intent.Step == stepEnding {
		if err := l.End(ctx); err != nil {
			return err
		}
		return l.Finish()
	}
	if err := l.Release(ctx, l.State.Intent.Paused); err != nil {
		return err
	}
	return m.finish(ctx, l)
}

func (m *Manager) settleResume(ctx context.Context, l *container.Locked) error {
	if l.State.Intent.Step == stepRunning {
		if err := m.settleRunning(ctx, l); err != nil {
			return err
		}
		return m.resumed(ctx, l)
	}
	// What there is was not committed: the supervisor ends it too.
	if err := l.End(ctx); err != nil {
		return err
	}
	return m.finish(ctx, l)
}

// settleRunning looks after what was restored and committed.
func (m *Manager) settleRunning(ctx context.Context, l *container.Locked) error {
	if err := l.AwaitLaunch(ctx); err != nil {
		return err
	}
	return l.Settled(ctx)
}

// landed waits for a launch whose caller was killed and says whether init runs.
func (m *Manager) landed(ctx context.Context, l *container.Locked) (bool, error) {
	if err := l.AwaitLaunch(ctx); err != nil {
		return false, err
	}
	_, run, err := l.Status()
	return run.Alive(), err
}

// settleStarting goes on with a rollback that was starting the container anew, or
// had. What it has written since, if it ran, is not to be lost: so it keeps its
// files, and there is no way back.
func (m *Manager) settleStarting(ctx context.Context, l *container.Locked) error {
	mf, err := readManifest(m.dir(l.Config.UID, l.State.Intent.Snapshot))
	if err != nil {
		return err
	}
	up, err := m.landed(ctx, l)
	if err != nil {
		return err
	}
	if up {
		return m.commitRollback(ctx, l, mf)
	}
	become(l, mf)
	if err := l.Launch(ctx, container.LaunchOptions{Volume: l.State.Intent.Volume}); err != nil {
		m.log().Warn("start it anew after an interrupted rollback", "container", l.Config.Name, "err", err)
	}
	return m.commitRollback(ctx, l, mf)
}

// settleRollback goes on where the old state had been ended, and back where not.
func (m *Manager) settleRollback(ctx context.Context, l *container.Locked) error {
	in := *l.State.Intent
	if in.Step != stepDumping {
		ctx = context.WithoutCancel(ctx) // as in rollback: nothing stops this half way
	}
	dir := m.dir(l.Config.UID, in.Snapshot)
	switch in.Step {
	case stepDumping:
		if err := l.Release(ctx, l.State.Intent.Paused); err != nil {
			return err
		}
		return m.finish(ctx, l)
	case stepRunning:
		mf, err := readManifest(dir)
		if err == nil {
			err = m.settleRunning(ctx, l)
		}
		if err != nil {
			return err
		}
		return m.commitRollback(ctx, l, mf)
	case stepStarting:
		return m.settleStarting(ctx, l)
	case stepReturned:
		if err := m.settleRunning(ctx, l); err != nil {
			return err
		}
		return m.finish(ctx, l)
	case stepReturning:
		if err := l.End(ctx); err != nil {
			return err
		}
		_, err := m.collect(ctx, l)
		return errors.Join(m.comeBack(ctx, l), err)
	}
	mf, err := verify(ctx, dir)
	if err != nil {
		if err := l.End(ctx); err != nil {
			return err
		}
		_, err = m.goForward(ctx, l, err)
		return err
	}
	err = m.goBack(ctx, l, mf)
	if err != nil && !committed(l) {
		_, err = m.goForward(ctx, l, err)
	}
	return err
}

// Collect removes what nothing refers to of a container's images and storage
// snapshots, such as a deletion that was interrupted leaves, and says what.
func (m *Manager) Collect(ctx context.Context, name string) (removed []string, err error) {
	err = m.with(ctx, "repair", name, func(l *container.Locked) error {
		removed, err = m.collect(ctx, l)
		return err
	})
	return removed, err
}

// collect removes images and storage snapshots that nothing refers to. What an
// image refers to that can't be read is not known: then no volume is removed.
func (m *Manager) collect(ctx context.Context, l *container.Locked) (removed []string, err error) {
	home := m.home(l.Config.UID)
	entries, err := os.ReadDir(home)
	if errors.Is(err, os.ErrNotExist) {
		entries, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	unknown := false
	known := map[string]bool{l.State.Volume: true}
	for _, e := range entries {
		mf, err := readManifest(filepath.Join(home, e.Name()))
		partial := filepath.Ext(e.Name()) == ".tmp"
		forgotten := strings.HasPrefix(e.Name(), suspendPrefix) && e.Name() != l.State.Suspended
		if partial || forgotten || errors.Is(err, ErrNotFound) {
			if err := statefile.RemoveTree(filepath.Join(home, e.Name())); err != nil {
				return removed, err
			}
			removed = append(removed, "image "+e.Name())
			continue
		}
		if err != nil { // kept for whoever looks into it
			m.log().Warn("an image can't be read", "container", l.Config.Name, "err", err)
			unknown = true
		}
		known[mf.Volume] = true
		half, err := statefile.SweepTemp(filepath.Join(home, e.Name()))
		if err != nil {
			return removed, err
		}
		removed = append(removed, half...)
	}
	if unknown {
		return removed, nil
	}
	volumes, err := m.collectVolumes(ctx, l, known)
	return append(removed, volumes...), err
}

func (m *Manager) collectVolumes(ctx context.Context, l *container.Locked, known map[string]bool) (removed []string, err error) {
	lister, ok := l.Volumes().(storage.Lister)
	if !ok {
		return nil, nil
	}
	all, err := lister.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if container.OwnsVolume(v.Name, l.Config.UID) && !known[v.Name] {
			if err := l.Volumes().Delete(ctx, v.Name); err != nil {
				return removed, err
			}
			removed = append(removed, "volume "+v.Name)
		}
	}
	return removed, nil
}
