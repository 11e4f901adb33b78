// Package btrfs keeps volumes as btrfs subvolumes: copies and snapshots take
// milliseconds whatever their size, and share their data.
//
// Where Root is on btrfs, the volumes are subvolumes of Root/volumes. Elsewhere
// they live in a btrfs file system inside one file:
//
//	Root/pool.img    the pool, on a loop device that vanishes with the last unmount
//	Root/pool        where it is mounted, and stays mounted until Detach or a reboot
//	Root/pool.lock   held while the pool is made, attached, grown or detached
//	Root/pool/volumes/NAME
//
// The layout is flat; nothing is ever mounted below the pool by this package.
//
// # Limits
//
// Simple quotas (kernel 6.7) charge an extent to the subvolume that wrote it
// for as long as anybody refers to it. A limit on one subvolume would start
// from zero when the subvolume is replaced by a copy of a snapshot, as a
// rollback does. So the limit is that of a group 1/N, which every volume and
// snapshot of one container joins when it is made. Usage is counted when btrfs
// commits (Flush, or every 30 s). A full container can remove files but not
// truncate them. btrfs limits no inodes, and statfs inside a volume tells of
// the whole pool.
//
// On the user's own btrfs quotas are used when they are simple quotas already,
// and otherwise only switched on when Options.EnableQuota asks for it, since
// kernels before 6.7 can't mount the file system afterwards.
//
// Groups outlive their volumes while other volumes share their data. What
// can't be removed yet is collected by a later Open: subvolume groups without
// subvolume and data, and groups 1/N without members, limit and data.
//
// # A container's own subvolumes
//
// Anybody may make subvolumes inside a volume. They count for the container's
// group, go when the volume is deleted, and are empty directories in its
// snapshots.
package btrfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// Options says where the volumes are and what a pool is made like.
type Options struct {
	// Root is an existing directory that only root may enter.
	Root string
	// PoolBytes is the size of a new pool file, rounded up to 1 MiB; at least
	// 256 MiB. A pool that is smaller already grows to it. 0 takes half of the
	// free space, at most 64 GiB, and lets a sparse pool grow by itself when it
	// runs short and the host has room.
	PoolBytes int64
	// Preallocate reserves all blocks of a new pool file, so that a full host
	// can't harm the containers. Otherwise the file is sparse and Capacity
	// takes the host's free space into account.
	Preallocate bool
	// EnableQuota switches simple quotas on where Root itself is on btrfs. Pools
	// have them anyway.
	EnableQuota bool
	// Log gets what is odd but harms nothing; nil discards.
	Log *slog.Logger
}

// Driver implements storage.Volumes, Lister, Limiter, Gauge and Flusher.
type Driver struct {
	log *slog.Logger
	// top is a directory of the file system that no limit applies to.
	top     string
	volumes string
	// pool is nil where Root is on btrfs.
	pool *pool
	// quota tells whether simple quotas are on.
	quota bool
	// groupBase keeps apart the groups of several roots on one file system.
	groupBase uint64
}

var (
	_ storage.Volumes = (*Driver)(nil)
	_ storage.Lister  = (*Driver)(nil)
	_ storage.Limiter = (*Driver)(nil)
	_ storage.Gauge   = (*Driver)(nil)
	_ storage.Flusher = (*Driver)(nil)
)

// Open makes the volumes below o.Root usable: it makes the pool when there is
// none and mounts it when it isn't, once, however many processes do so at the
// same time. Errors: ErrUnsupported when the kernel has no btrfs or mkfs.btrfs
// is not installed, ErrNoSpace when the pool doesn't fit.
func Open(ctx context.Context, o Options) (d *Driver, err error) {
	defer storage.WrapOp("open btrfs storage", "", &err)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	// mountinfo shows paths without symbolic links.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	d = &Driver{log: o.Log}
	own, err := usesPool(root)
	if err != nil {
		return nil, err
	}
	if own {
		err = d.openPool(ctx, root, o)
	} else {
		err = d.openNative(root, o)
	}
	if err != nil {
		return nil, storage.FromErrno(err)
	}
	if d.quota {
		err = d.collectGroups()
	}
	return d, err
}

// usesPool tells whether root needs a pool file: it is not on btrfs, or has one.
func usesPool(root string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return false, fmt.Errorf("statfs %s: %w", root, err)
	}
	if fs.Type != unix.BTRFS_SUPER_MAGIC {
		return true, nil
	}
	_, err := os.Lstat(filepath.Join(root, poolFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (d *Driver) openPool(ctx context.Context, root string, o Options) error {
	d.pool = &pool{root: root, log: o.Log, autoGrow: o.PoolBytes == 0}
	if err := d.pool.open(ctx, o); err != nil {
		return err
	}
	d.top = d.pool.mountPoint()
	d.volumes = filepath.Join(d.top, "volumes")
	d.quota = d.pool.quota
	return nil
}

// nativeGroupBits is how much of the 48 bits of a group's number remain for
// the caller where the rest tells this root from others on the file system.
const nativeGroupBits = 20

func (d *Driver) openNative(root string, o Options) (err error) {
	d.volumes = filepath.Join(root, "volumes")
	d.top = d.volumes
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	err = makeSubvolume(dir, "volumes", nil, false, 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", d.volumes, err)
	}
	top, err := os.Open(d.volumes)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	if err := top.Chmod(0o700); err != nil {
		return err
	}
	return d.nativeQuota(top, o)
}

// nativeQuota finds out whether groups can be used. A plain directory in place
// of the subvolume Root/volumes works, without groups.
func (d *Driver) nativeQuota(top *os.File, o Options) error {
	_, st, err := identify(top)
	if err != nil || st.Ino != firstFreeObject {
		return err
	}
	id, err := subvolumeID(top)
	if err != nil || id >= 1<<(48-nativeGroupBits) {
		return err
	}
	d.groupBase = id << nativeGroupBits
	any, err := anyQuotaOn(top)
	if err != nil {
		return err
	}
	if !any && o.EnableQuota {
		if err := enableSimpleQuota(top); err != nil {
			return fmt.Errorf("enable simple quotas: %w", err)
		}
	}
	d.quota, err = simpleQuotaOn(top)
	return err
}

// Close forgets the volumes and leaves everything mounted and usable.
func (d *Driver) Close() error { return nil }

// Detach unmounts the pool and frees its loop device; on a real btrfs there is
// nothing to do. The Driver and others on the same root can't be used
// afterwards. Errors: ErrInUse when something uses a volume, and when another
// mount namespace goes on having a copy of the mount for some seconds.
func (d *Driver) Detach(ctx context.Context) (err error) {
	defer storage.WrapOp("detach storage", "", &err)
	if d.pool == nil {
		return nil
	}
	return storage.FromErrno(d.pool.detach(ctx))
}

// Grow makes the pool at least bytes large, while it is in use. It never
// shrinks. Errors: ErrNoSpace when the host lacks the room, ErrUnsupported on
// a real btrfs.
func (d *Driver) Grow(ctx context.Context, bytes int64) (err error) {
	defer storage.WrapOp("grow storage", "", &err)
	if d.pool == nil {
		return fmt.Errorf("%w: the volumes are not in a pool file", storage.ErrUnsupported)
	}
	return storage.FromErrno(d.pool.grow(ctx, bytes))
}

// Capacity implements storage.Gauge. For a sparse pool FreeBytes is no more
// than what the host can give beyond its reserve (a twentieth of its file
// system, at most 2 GiB).
func (d *Driver) Capacity(context.Context) (c storage.Capacity, err error) {
	defer storage.WrapOp("capacity", "", &err)
	if d.pool != nil {
		r, err := d.pool.room()
		return storage.Capacity{TotalBytes: r.poolTotal, FreeBytes: r.free()}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.volumes, &fs); err != nil {
		return c, fmt.Errorf("statfs %s: %w", d.volumes, err)
	}
	return storage.Capacity{TotalBytes: int64(fs.Blocks) * fs.Bsize, FreeBytes: int64(fs.Bavail) * fs.Bsize}, nil
}
