package checkpoint

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sys/unix"
)

// Manager takes and brings back snapshots of the containers of one host.
type Manager struct {
	StateRoot  string
	Containers *container.Manager
	CRIU       criu.Engine
	// Deadline bounds the time a container stands still; 0 is 60 s.
	Deadline time.Duration
	// NoPreflight leaves out the look at the processes before a checkpoint.
	NoPreflight bool
	Log         *slog.Logger
	Trace       func(phase string, d time.Duration)
}

func (m *Manager) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}

func (m *Manager) trace(phase string, since time.Time) {
	if m.Trace != nil {
		m.Trace(phase, time.Since(since))
	}
}

// home is where a container's images are.
func (m *Manager) home(uid string) string { return filepath.Join(m.StateRoot, "snapshots", uid) }

func (m *Manager) dir(uid, name string) string { return filepath.Join(m.home(uid), name) }

var snapPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName answers ErrName unless name can be a snapshot's.
func CheckName(name string) error {
	if !snapPattern.MatchString(name) || strings.HasSuffix(name, ".tmp") || strings.HasPrefix(name, suspendPrefix) {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

const suspendPrefix = "suspend-"

func token() string {
	b := make([]byte, 4)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// with runs do on a locked container and lets it go.
func (m *Manager) with(ctx context.Context, op, name string, do func(*container.Locked) error) (err error) {
	defer func() {
		if err != nil {
			err = &container.OpError{Op: op, Name: name, Err: err}
		}
	}()
	l, err := m.Containers.Lock(ctx, name, op)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	return do(l)
}

// List gives a container's snapshots, oldest first, and the name of the one it
// is at. Snapshots that can't be read are in the error, the others are returned all
// the same.
func (m *Manager) List(ctx context.Context, name string) (list []Manifest, current string, err error) {
	info, err := m.Containers.Get(ctx, name)
	if err != nil {
		return nil, "", err
	}
	list, err = m.list(info.Config.UID)
	return list, info.State.Current, err
}

func (m *Manager) list(uid string) ([]Manifest, error) {
	entries, err := os.ReadDir(m.home(uid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Manifest
	var errs []error
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue
		}
		mf, err := readManifest(m.dir(uid, e.Name()))
		switch {
		case errors.Is(err, ErrNotFound): // being deleted
		case err != nil:
			errs = append(errs, err)
		default:
			list = append(list, mf)
		}
	}
	slices.SortFunc(list, func(a, b Manifest) int { return a.Created.Compare(b.Created) })
	return list, errors.Join(errs...)
}

// Delete removes a snapshot. Its children become its parent's.
func (m *Manager) Delete(ctx context.Context, name, snap string) error {
	return m.with(ctx, "delete snapshot "+snap+" of", name, func(l *container.Locked) error {
		return m.delete(ctx, l, snap)
	})
}

func (m *Manager) delete(ctx context.Context, l *container.Locked, snap string) error {
	if err := CheckName(snap); err != nil {
		return err
	}
	uid := l.Config.UID
	mf, err := readManifest(m.dir(uid, snap))
	if err != nil && !errors.Is(err, ErrDamaged) { // a damaged one can be deleted
		return err
	}
	if err := notMounted(mf.Volume); err != nil {
		return err
	}
	all, err := m.list(uid)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	for _, child := range all {
		if child.Parent != snap {
			continue
		}
		child.Parent = mf.Parent
		if err := manifestSchema.Write(filepath.Join(m.dir(uid, child.Name), "manifest.json"), &child); err != nil {
			return err
		}
	}
	if l.State.Current == snap {
		l.State.Current = mf.Parent
		if err := l.SaveState(); err != nil {
			return err
		}
	}
	// Renamed first: a snapshot is there whole or not at all.
	gone := m.dir(uid, "deleted-"+token()+".tmp")
	if err := os.Rename(m.dir(uid, snap), gone); err != nil {
		return err
	}
	if err := statefile.SyncDir(m.home(uid)); err != nil {
		return err
	}
	if mf.Volume != "" {
		if err := l.Volumes().Delete(ctx, mf.Volume); err != nil {
			return err
		}
	}
	return statefile.RemoveTree(gone)
}

// DeleteAll removes every image of a container; for container.Manager.Destroy.
func (m *Manager) DeleteAll(_ context.Context, l *container.Locked) error {
	return statefile.RemoveTree(m.home(l.Config.UID))
}

// Mount shows a snapshot's files, read-only, in a directory of the host. Files
// have the owners they have inside. Nothing in them is trusted: no devices, no
// setuid, no execution.
func (m *Manager) Mount(ctx context.Context, name, snap, dir string) error {
	return m.with(ctx, "mount snapshot "+snap+" of", name, func(l *container.Locked) error {
		if err := CheckName(snap); err != nil {
			return err
		}
		mf, err := readManifest(m.dir(l.Config.UID, snap))
		if err != nil {
			return err
		}
		fi, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMounted, err)
		}
		if !fi.IsDir() {
			return fmt.Errorf("%w: %s is not a directory", ErrMounted, dir)
		}
		return bindReadOnly(l.Volumes().Path(mf.Volume), dir)
	})
}

func bindReadOnly(from, to string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", from, err)
	}
	defer unix.Close(fd)
	attr := unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC,
		Propagation: unix.MS_PRIVATE,
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("make it read-only: %w", err)
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// Umount ends what Mount began. It unmounts nothing but a snapshot of this host.
func (m *Manager) Umount(_ context.Context, dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMounted, err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return err
	}
	mounts, err := snapshotMounts()
	if err != nil {
		return err
	}
	if _, ours := mounts[real]; !ours {
		return fmt.Errorf("%w: %s is not a mounted snapshot", ErrMounted, dir)
	}
	if err := unix.Unmount(real, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("umount %s: %w", dir, err)
	}
	return nil
}
