package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// renew makes a writable copy of a storage snapshot the container's root volume.
// Nothing of the container may run. It can be repeated: what an interrupted one
// leaves is not referred to, and collected.
func (m *Manager) renew(ctx context.Context, l *container.Locked, from string) error {
	next := container.VolumeName(l.Config.UID, l.State.Generation+1)
	if err := l.Volumes().Delete(ctx, next); err != nil {
		return err
	}
	err := l.Volumes().Create(ctx, next, storage.CreateOptions{Origin: from, Group: uint64(l.Config.CTID)})
	if err != nil {
		return fmt.Errorf("renew the root volume: %w", err)
	}
	old := l.State.Volume
	l.State.Volume = next
	l.State.Generation++
	if in := l.State.Intent; in != nil && in.Volume == next { // a rollback's, which may delete it
		in.Volume = container.VolumeName(l.Config.UID, l.State.Generation+1)
	}
	if err := l.SaveState(); err != nil {
		return err
	}
	if err := l.SetDiskLimit(ctx); err != nil {
		return err
	}
	return l.Volumes().Delete(ctx, old)
}

// dropImage removes the image that a suspended container waited in.
func (m *Manager) dropImage(ctx context.Context, l *container.Locked, name string) error {
	if name == "" {
		return nil
	}
	dir := m.dir(l.Config.UID, name)
	mf, err := readManifest(dir)
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged) {
		return err
	}
	if mf.Volume != "" {
		if err := l.Volumes().Delete(ctx, mf.Volume); err != nil {
			return err
		}
	}
	return statefile.RemoveTree(dir)
}
