package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// raceTries bounds how often something is done again because another process,
// or a container inside its volume, came between.
const raceTries = 8

// Create implements storage.Volumes. A copy is a snapshot: the same instant
// for all files, even of a volume that is being written. Where groups don't
// work, o.Group is ignored. A sparse pool without a given size grows first
// when it runs short.
func (d *Driver) Create(ctx context.Context, name string, o storage.CreateOptions) (err error) {
	defer storage.WrapOp("create volume", name, &err)
	if d.pool != nil {
		d.pool.relieve(ctx)
	}
	return storage.FromErrno(d.add(ctx, addition{name: name, origin: o.Origin, copy: o.Origin != "", group: o.Group}))
}

// Snapshot implements storage.Volumes. It writes out what is dirty in source
// first, which Flush makes short.
func (d *Driver) Snapshot(ctx context.Context, source, name string, group uint64) (err error) {
	defer storage.WrapOp("snapshot volume", name, &err)
	return storage.FromErrno(d.add(ctx, addition{name: name, origin: source, copy: true, readOnly: true, group: group}))
}

// addition is a subvolume to be made.
type addition struct {
	name, origin   string
	copy, readOnly bool
	group          uint64
}

func (d *Driver) add(ctx context.Context, a addition) (err error) {
	if err := storage.CheckName(a.name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	dir, err := d.openVolumes()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var origin *os.File
	if a.copy {
		if origin, err = openVolume(dir, a.origin); err != nil {
			return fmt.Errorf("origin: %w", err)
		}
		defer func() { err = errors.Join(err, origin.Close()) }()
	}
	if !d.quota || a.group == 0 {
		a.group = 0
	} else if a.group, err = d.groupID(a.group); err != nil {
		return err
	}
	if err := d.makeInGroup(dir, a, origin); err != nil {
		return err
	}
	if err := d.complete(dir, a); err != nil {
		return errors.Join(err, destroySubvolume(dir, a.name))
	}
	return nil
}

// makeInGroup sees to it that the group exists. Kernels differ in what they
// say when it doesn't: before 6.9 nothing, and the volume is in no group.
func (d *Driver) makeInGroup(dir *os.File, a addition, origin *os.File) error {
	for try := range raceTries {
		if a.group != 0 {
			if err := createGroup(dir, a.group); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("make quota group: %w", err)
			}
		}
		err := makeSubvolume(dir, a.name, origin, a.readOnly, a.group)
		vanished := a.group != 0 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL))
		if !vanished || try == raceTries-1 {
			return err
		}
	}
	return nil
}

// complete gives an empty volume its mode, which the kernel makes from the
// umask, and makes sure that the volume counts for its group: another process
// may have collected the group, empty as it was, at the wrong moment.
func (d *Driver) complete(dir *os.File, a addition) (err error) {
	v, err := openVolume(dir, a.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if !a.copy {
		if err := v.Chmod(0o755); err != nil {
			return err
		}
	}
	if a.group == 0 {
		return nil
	}
	id, err := subvolumeID(v)
	if err != nil {
		return err
	}
	for range raceTries {
		is, err := inGroup(dir, id, a.group)
		if err != nil || is {
			return err
		}
		for _, err := range []error{createGroup(dir, a.group), assignGroup(dir, id, a.group)} {
			if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("join quota group: %w", err)
			}
		}
	}
	return errors.New("the quota group vanishes again and again")
}

// Delete implements storage.Volumes. Subvolumes that the container made inside
// go too. Space comes back in the background, as fast as btrfs takes the tree
// apart.
func (d *Driver) Delete(ctx context.Context, name string) (err error) {
	defer storage.WrapOp("delete volume", name, &err)
	if err := storage.CheckName(name); err != nil {
		return err
	}
	dir, err := d.openVolumes()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for range raceTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		err = destroySubvolume(dir, name)
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
		if err := d.destroyInside(dir, name); err != nil {
			return storage.FromErrno(err)
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return storage.FromErrno(err)
	}
	if err := startCommit(dir); err != nil {
		d.log.Warn("space of a deleted volume comes back late", "op", "delete volume", "err", err)
	}
	return nil
}

// Path implements storage.Volumes.
func (d *Driver) Path(name string) string {
	if storage.CheckName(name) != nil {
		return ""
	}
	return filepath.Join(d.volumes, name)
}

// List implements storage.Lister. Where groups don't work, Group is 0.
func (d *Driver) List(ctx context.Context) (list []storage.Volume, err error) {
	defer storage.WrapOp("list volumes", "", &err)
	dir, err := d.openVolumes()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var quotas quotaTree
	if d.quota {
		if quotas, err = readQuotaTree(dir); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, is, err := d.describe(dir, name, quotas)
		if err != nil {
			return nil, err
		}
		if is {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b storage.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// describe tells of one entry of the directory; what is no volume, or is gone
// since the directory was read, is none.
func (d *Driver) describe(dir *os.File, name string, quotas quotaTree) (v storage.Volume, is bool, err error) {
	if storage.CheckName(name) != nil {
		return v, false, nil
	}
	f, err := openVolume(dir, name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, errNoSubvolume) {
		return v, false, nil
	}
	if err != nil {
		return v, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	v.Name = name
	if v.ReadOnly, err = subvolumeReadOnly(f); err != nil {
		return v, false, err
	}
	id, err := subvolumeID(f)
	if err != nil {
		return v, false, err
	}
	for _, parent := range quotas.parents[id] {
		if n, ours := d.groupNumber(parent); ours {
			v.Group = n
		}
	}
	return v, true, nil
}

// Flush implements storage.Flusher. It writes out the whole file system, and
// grows a sparse pool as Create does.
func (d *Driver) Flush(ctx context.Context, name string) (err error) {
	defer storage.WrapOp("flush volume", name, &err)
	if err := storage.CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.pool != nil {
		d.pool.relieve(ctx)
	}
	dir, err := d.openVolumes()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	v, err := openVolume(dir, name)
	if err != nil {
		return storage.FromErrno(err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := unix.Syncfs(int(v.Fd())); err != nil {
		return storage.FromErrno(fmt.Errorf("syncfs: %w", err))
	}
	return nil
}
