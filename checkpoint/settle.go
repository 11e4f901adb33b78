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
	if err := l.Release(ctx, false); err != nil {
		return err
	}
	if _, err := readManifest(m.dir(l.Config.UID, l.State.Intent.Snapshot)); err == nil {
		l.State.Current = l.State.Intent.Snapshot // it was published
	}
	return m.finish(ctx, l)
}

// finish drops what is left over and records that all is settled.
func (m *Manager) finish(ctx context.Context, l *container.Locked) error {
	return errors.Join(m.collect(ctx, l), l.Tidy(ctx), l.Finish())
}

func (m *Manager) settleSuspend(ctx context.Context, l *container.Locked) error {
	if l.State.Intent.Step == stepEnding {
		if err := l.End(ctx); err != nil {
			return err
		}
		return l.Finish()
	}
	if err := l.Release(ctx, false); err != nil {
		return err
	}
	return m.finish(ctx, l)
}

func (m *Manager) settleResume(ctx context.Context, l *container.Locked) error {
	up, err := m.landed(ctx, l)
	if err != nil {
		return err
	}
	if up {
		return m.resumed(l)
	}
	return m.finish(ctx, l)
}

// landed waits for a launch whose caller was killed and says whether init runs.
func (m *Manager) landed(ctx context.Context, l *container.Locked) (bool, error) {
	if err := l.AwaitLaunch(ctx); err != nil {
		return false, err
	}
	_, run, err := l.Status()
	return run.Alive(), err
}

// settleRollback goes on where the old state had been ended, and back where not.
func (m *Manager) settleRollback(ctx context.Context, l *container.Locked) error {
	in := *l.State.Intent
	if in.Step == stepDumping {
		if err := l.Release(ctx, false); err != nil {
			return err
		}
		return m.finish(ctx, l)
	}
	mf, err := verify(ctx, m.dir(l.Config.UID, in.Snapshot))
	if err != nil {
		_, err = m.goForward(ctx, l, err)
		return err
	}
	if in.Step == stepReverting {
		up, err := m.landed(ctx, l)
		if err != nil {
			return err
		}
		if up {
			return m.commitRollback(ctx, l, mf)
		}
	}
	if err := m.goBack(ctx, l, mf); err != nil {
		_, err = m.goForward(ctx, l, err)
		return err
	}
	return m.collect(ctx, l)
}

// collect removes images and storage snapshots that nothing refers to.
func (m *Manager) collect(ctx context.Context, l *container.Locked) error {
	home := m.home(l.Config.UID)
	entries, err := os.ReadDir(home)
	if errors.Is(err, os.ErrNotExist) {
		entries, err = nil, nil
	}
	if err != nil {
		return err
	}
	known := map[string]bool{l.State.Volume: true}
	for _, e := range entries {
		mf, err := readManifest(filepath.Join(home, e.Name()))
		partial := filepath.Ext(e.Name()) == ".tmp"
		forgotten := strings.HasPrefix(e.Name(), suspendPrefix) && e.Name() != l.State.Suspended
		if partial || forgotten || errors.Is(err, ErrNotFound) {
			if err := statefile.RemoveTree(filepath.Join(home, e.Name())); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err // damaged: kept for whoever looks into it
		}
		known[mf.Volume] = true
	}
	return m.collectVolumes(ctx, l, known)
}

func (m *Manager) collectVolumes(ctx context.Context, l *container.Locked, known map[string]bool) error {
	lister, ok := l.Volumes().(storage.Lister)
	if !ok {
		return nil
	}
	all, err := lister.List(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if container.OwnsVolume(v.Name, l.Config.UID) && !known[v.Name] {
			if err := l.Volumes().Delete(ctx, v.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
