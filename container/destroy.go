package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

// Destroy removes a stopped or suspended container and its volumes, snapshots
// included. With force it is killed first. before is called under the lock and
// with the intent on disk, for what layers above keep of the container.
func (m *Manager) Destroy(ctx context.Context, name string, force bool, before func(context.Context, *Locked) error) (err error) {
	defer wrapOp("destroy", name, &err)
	var was State
	_ = stateSchema.Read(m.stateFile(name), &was) // without one there is nothing to finish
	lock := m.Lock
	if force { // whatever was interrupted is about to go
		lock = m.lockOnly
	}
	l, err := lock(ctx, name, "destroy")
	if errors.Is(err, ErrNotFound) && was.Intent != nil {
		return nil // an interrupted create or destroy, which that settled
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	s, _, err := l.Status()
	if err != nil {
		return err
	}
	if s == Running || s == Paused {
		if !force {
			return &StateError{Op: "destroy", Status: s, Need: []Status{Stopped, Suspended}}
		}
		if err := l.End(ctx); err != nil {
			return err
		}
	}
	if err := l.begin("destroy"); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx, l); err != nil {
			return err
		}
	}
	if err := l.erase(ctx); err != nil {
		return err
	}
	return m.lastOut(ctx)
}

// lastOut removes what the host's network has for containers, when there is none
// any more. The lock keeps a first one from coming meanwhile.
func (m *Manager) lastOut(ctx context.Context) (err error) {
	lock, err := statefile.WaitLock(ctx, filepath.Join(m.StateRoot, "host.lock"), "destroy")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	names, err := m.Names()
	if err != nil || len(names) > 0 {
		return err
	}
	return netns.Forget(ctx)
}

// OwnsVolume says whether a volume belongs to the container of that uid.
func OwnsVolume(volume, uid string) bool {
	return strings.HasPrefix(volume, "c-"+uid+"-") || strings.HasPrefix(volume, "s-"+uid+"-")
}

// deleteVolumes removes every volume of the container and its quota group.
func (l *Locked) deleteVolumes(ctx context.Context) error {
	lister, ok := l.m.Volumes.(storage.Lister)
	if !ok {
		return l.m.Volumes.Delete(ctx, l.State.Volume)
	}
	all, err := lister.List(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		if OwnsVolume(v.Name, l.Config.UID) {
			if err := l.m.Volumes.Delete(ctx, v.Name); err != nil {
				return err
			}
		}
	}
	if limiter, ok := l.m.Volumes.(storage.Limiter); ok {
		err := limiter.DeleteGroup(ctx, uint64(l.Config.CTID))
		if err != nil && !errors.Is(err, storage.ErrUnsupported) {
			return err
		}
	}
	return nil
}

// Rename gives a container another name. Its uid, and with it cgroup, link and
// volumes, stays; a running container keeps its host name.
func (m *Manager) Rename(ctx context.Context, name, to string) (err error) {
	defer wrapOp("rename", name, &err)
	if err := CheckName(to); err != nil {
		return err
	}
	l, err := m.Lock(ctx, name, "rename")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	// After the container's, as everywhere: what settles it may want the host's too.
	hostLock, err := statefile.WaitLock(ctx, filepath.Join(m.StateRoot, "host.lock"), "rename "+name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hostLock.Unlock()) }()
	if _, _, err := l.Require("rename", Stopped, Suspended); err != nil {
		return err
	}
	if l.backingOff() {
		return fmt.Errorf("%w: it is about to be restarted, stop it first", ErrState)
	}
	l.Config.Name = to
	if l.Config.Hostname == name {
		l.Config.Hostname = to
	}
	if err := l.Config.Validate(); err != nil {
		return err
	}
	// The directory's name decides: a crash between the two steps leaves the
	// container renamed.
	err = unix.Renameat2(unix.AT_FDCWD, m.dir(name), unix.AT_FDCWD, m.dir(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: %w", to, ErrExists)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: name, New: to, Err: err}
	}
	if err := statefile.SyncDir(m.dir("")); err != nil {
		return err
	}
	return configSchema.Write(m.configFile(to), &l.Config)
}
