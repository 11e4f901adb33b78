// Package dir keeps volumes as plain directories on any file system.
//
//	Root/volumes/NAME             the volume
//	Root/volumes/NAME.RANDOM.tmp  one being made or removed
//	Root/volumes/.meta/NAME.json  whether it is read-only, and its group
//	Root/volumes/.lock            held while a volume appears or disappears
//
// A copy takes as long as copying takes, though data is shared where the file
// system can (FICLONE: XFS, btrfs, bcachefs). It preserves owners, modes,
// times, extended attributes with ACLs and capabilities, hard links, symbolic
// links, devices and holes; not inode flags (chattr) and project ids.
//
// A copy, and so a snapshot, is not atomic while the tree is being written:
// freeze the writers, or stop them. That a snapshot is read-only is a note in
// its metadata and a convention: the file system does not enforce it. There
// are no limits; the group is only remembered.
package dir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// Options says where the volumes are.
type Options struct {
	// Root is an existing directory that only root may enter.
	Root string
	// Log gets what is odd but harms nothing; nil discards.
	Log *slog.Logger
}

// Driver implements storage.Volumes, Lister, Gauge and Flusher.
type Driver struct {
	volumes string
	log     *slog.Logger
}

var (
	_ storage.Volumes = (*Driver)(nil)
	_ storage.Lister  = (*Driver)(nil)
	_ storage.Gauge   = (*Driver)(nil)
	_ storage.Flusher = (*Driver)(nil)
)

// Open makes the volumes below o.Root usable, and removes what interrupted
// operations left there.
func Open(ctx context.Context, o Options) (d *Driver, err error) {
	defer storage.WrapOp("open directory storage", "", &err)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(root); err != nil {
		return nil, err
	}
	d = &Driver{volumes: filepath.Join(root, "volumes"), log: o.Log}
	if err := os.MkdirAll(d.metaDir(), 0o700); err != nil {
		return nil, err
	}
	return d, d.sweep(ctx)
}

// Close forgets the volumes.
func (d *Driver) Close() error { return nil }

// Detach does nothing: nothing is mounted.
func (d *Driver) Detach(context.Context) error { return nil }

// Create implements storage.Volumes.
func (d *Driver) Create(ctx context.Context, name string, o storage.CreateOptions) (err error) {
	defer storage.WrapOp("create volume", name, &err)
	return storage.FromErrno(d.add(ctx, name, o.Origin, o.Origin != "", meta{Group: o.Group}))
}

// Snapshot implements storage.Volumes. It shows one instant only if nobody
// writes source meanwhile.
func (d *Driver) Snapshot(ctx context.Context, source, name string, group uint64) (err error) {
	defer storage.WrapOp("snapshot volume", name, &err)
	return storage.FromErrno(d.add(ctx, name, source, true, meta{ReadOnly: true, Group: group}))
}

// add builds the tree under a temporary name and gives it its own when it is
// whole and on disk.
func (d *Driver) add(ctx context.Context, name, origin string, fromOrigin bool, m meta) (err error) {
	if err := storage.CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var source *os.File
	if fromOrigin {
		if source, err = d.open(origin); err != nil {
			return fmt.Errorf("origin: %w", err)
		}
		defer func() { err = errors.Join(err, source.Close()) }()
	}
	if err := d.mustBeAbsent(name); err != nil { // before the work; commit asks again
		return err
	}
	temp, err := d.newTemp(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, temp.Close()) }()
	if fromOrigin {
		err = copyTree(ctx, source, temp)
	} else {
		err = temp.Chmod(0o755)
	}
	if err == nil {
		err = d.commit(ctx, temp, name, m)
	}
	if err != nil {
		return errors.Join(err, statefile.RemoveTree(temp.Name()))
	}
	return nil
}

// commit flushes once for the whole tree; an fsync for each of its files would
// take many times as long.
func (d *Driver) commit(ctx context.Context, temp *os.File, name string, m meta) error {
	if err := unix.Syncfs(int(temp.Fd())); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	return d.locked(ctx, "create "+name, func() error {
		if err := d.mustBeAbsent(name); err != nil {
			return err
		}
		if err := metaSchema.Write(d.metaPath(name), m); err != nil {
			return err
		}
		if err := unix.Renameat2(unix.AT_FDCWD, temp.Name(), unix.AT_FDCWD, d.path(name), unix.RENAME_NOREPLACE); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		return statefile.SyncDir(d.volumes)
	})
}

// Delete implements storage.Volumes. It never crosses a mount point: a volume
// with something mounted inside stays, ErrInUse.
func (d *Driver) Delete(ctx context.Context, name string) (err error) {
	defer storage.WrapOp("delete volume", name, &err)
	if err := storage.CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	g := &grave{}
	err = d.locked(ctx, "delete "+name, func() (err error) {
		g, err = d.bury(name)
		return err
	})
	if err != nil || g == nil {
		return storage.FromErrno(err)
	}
	defer func() { err = errors.Join(err, g.dir.Close()) }()
	err = statefile.RemoveTree(g.temp)
	if errors.Is(err, statefile.ErrMounted) {
		err = fmt.Errorf("%w: %w", storage.ErrInUse, err)
		return errors.Join(err, d.locked(context.WithoutCancel(ctx), "undelete "+name, func() error { return d.exhume(g) }))
	}
	return storage.FromErrno(err)
}

// Path implements storage.Volumes.
func (d *Driver) Path(name string) string {
	if storage.CheckName(name) != nil {
		return ""
	}
	return d.path(name)
}

// List implements storage.Lister.
func (d *Driver) List(ctx context.Context) (list []storage.Volume, err error) {
	defer storage.WrapOp("list volumes", "", &err)
	entries, err := os.ReadDir(d.volumes)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.IsDir() || storage.CheckName(e.Name()) != nil {
			continue
		}
		m, err := d.readMeta(e.Name())
		if err != nil {
			return nil, err
		}
		list = append(list, storage.Volume{Name: e.Name(), ReadOnly: m.ReadOnly, Group: m.Group})
	}
	slices.SortFunc(list, func(a, b storage.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Capacity implements storage.Gauge.
func (d *Driver) Capacity(context.Context) (c storage.Capacity, err error) {
	defer storage.WrapOp("capacity", "", &err)
	var fs unix.Statfs_t
	if err := unix.Statfs(d.volumes, &fs); err != nil {
		return c, fmt.Errorf("statfs %s: %w", d.volumes, err)
	}
	return storage.Capacity{TotalBytes: int64(fs.Blocks) * fs.Bsize, FreeBytes: int64(fs.Bavail) * fs.Bsize}, nil
}

// Flush implements storage.Flusher. It writes out the whole file system.
func (d *Driver) Flush(ctx context.Context, name string) (err error) {
	defer storage.WrapOp("flush volume", name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := d.open(name)
	if err != nil {
		return storage.FromErrno(err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := unix.Syncfs(int(v.Fd())); err != nil {
		return storage.FromErrno(fmt.Errorf("syncfs: %w", err))
	}
	return nil
}
