package btrfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// Group ids carry a level in their upper 16 bits: 0 for each subvolume's own
// group, whose number is the subvolume's id, 1 for ours.
const (
	levelShift = 48
	levelOne   = uint64(1) << levelShift
	numberMask = levelOne - 1
)

var errNoQuota = fmt.Errorf("%w: simple quotas are off (they need kernel 6.7)", storage.ErrUnsupported)

// groupID is the kernel's id of a caller's group.
func (d *Driver) groupID(group uint64) (uint64, error) {
	most := numberMask
	if d.groupBase != 0 {
		most = 1<<nativeGroupBits - 1
	}
	if group == 0 || group > most {
		return 0, fmt.Errorf("quota groups are numbered from 1 to %d, not %d", most, group)
	}
	return levelOne | d.groupBase | group, nil
}

// groupNumber is the reverse of groupID; ours is false for other roots' groups.
func (d *Driver) groupNumber(id uint64) (group uint64, ours bool) {
	if id>>levelShift != 1 {
		return 0, false
	}
	if d.groupBase == 0 {
		return id & numberMask, true
	}
	const low = 1<<nativeGroupBits - 1
	return id & low, id&numberMask&^low == d.groupBase
}

// withGroup runs f on the directory that group ioctls go through.
func (d *Driver) withGroup(ctx context.Context, group uint64, f func(top *os.File, id uint64) error) (err error) {
	if !d.quota {
		return errNoQuota
	}
	id, err := d.groupID(group)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	top, err := d.openVolumes()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	return f(top, id)
}

// SetLimit implements storage.Limiter.
func (d *Driver) SetLimit(ctx context.Context, group uint64, bytes int64) (err error) {
	defer storage.WrapOp("set limit", fmt.Sprint(group), &err)
	if bytes < 0 {
		return fmt.Errorf("a limit of %d bytes is negative", bytes)
	}
	want := uint64(limitNone)
	if bytes > 0 {
		want = uint64(bytes)
	}
	return d.withGroup(ctx, group, func(top *os.File, id uint64) error {
		for range raceTries {
			if err := createGroup(top, id); err != nil && !errors.Is(err, unix.EEXIST) {
				return storage.FromErrno(err)
			}
			if err := limitGroup(top, id, want); !errors.Is(err, unix.ENOENT) {
				return storage.FromErrno(err)
			}
		}
		return errors.New("the group vanishes again and again")
	})
}

// Usage implements storage.Limiter.
func (d *Driver) Usage(ctx context.Context, group uint64) (u storage.Usage, err error) {
	defer storage.WrapOp("read usage", fmt.Sprint(group), &err)
	err = d.withGroup(ctx, group, func(top *os.File, id uint64) error {
		g, err := readGroup(top, id)
		u.Bytes = int64(min(g.bytes, math.MaxInt64))
		if g.limited {
			u.LimitBytes = int64(min(g.limit, math.MaxInt64))
		}
		return err
	})
	return u, err
}

// DeleteGroup implements storage.Limiter. Extents that other groups' volumes
// still share keep the group alive, without a limit.
func (d *Driver) DeleteGroup(ctx context.Context, group uint64) (err error) {
	defer storage.WrapOp("delete group", fmt.Sprint(group), &err)
	return d.withGroup(ctx, group, func(top *os.File, id uint64) error {
		g, err := readGroup(top, id)
		if err != nil || !g.exists {
			return err
		}
		if g.limited {
			if err := limitGroup(top, id, limitNone); err != nil && !errors.Is(err, unix.ENOENT) {
				return storage.FromErrno(err)
			}
		}
		return storage.FromErrno(discardGroup(top, id))
	})
}

// discardGroup removes a group unless it is in use or gone.
func discardGroup(top *os.File, id uint64) error {
	err := removeGroup(top, id)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// collectGroups removes what earlier deletions had to leave. A group that
// another process is about to use may go too; complete makes up for it.
func (d *Driver) collectGroups() (err error) {
	top, err := d.openVolumes()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	t, err := readQuotaTree(top)
	if err != nil {
		return err
	}
	members := map[uint64]bool{}
	for id, g := range t.groups {
		stale := id>>levelShift == 0 && id >= firstFreeObject && g.bytes == 0
		if stale {
			exists, err := subvolumeExists(top, id)
			if err != nil {
				return err
			}
			stale = !exists
		}
		if !stale {
			for _, parent := range t.parents[id] {
				members[parent] = true
			}
			continue
		}
		if err := discardGroup(top, id); err != nil {
			return fmt.Errorf("collect quota group 0/%d: %w", id, err)
		}
	}
	for id, g := range t.groups {
		if _, ours := d.groupNumber(id); !ours || members[id] || g.limited || g.bytes != 0 {
			continue
		}
		if err := discardGroup(top, id); err != nil {
			return fmt.Errorf("collect quota group 1/%d: %w", id&numberMask, err)
		}
	}
	return nil
}
