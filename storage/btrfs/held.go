package btrfs

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

// Held tells what is charged to the quota group of the volume that a directory is
// in: Limiter.Usage for whoever watches one container and opens no store. The error
// is storage.ErrUnsupported where there is no such group.
func Held(dir string) (u storage.Usage, err error) {
	defer storage.WrapOp("read usage", dir, &err)
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	group, err := groupAbove(f)
	if err != nil {
		return u, err
	}
	g, err := readGroup(f, group)
	u.Bytes = int64(min(g.bytes, math.MaxInt64))
	if g.limited {
		u.LimitBytes = int64(min(g.limit, math.MaxInt64))
	}
	return u, err
}

// groupAbove finds the group that a subvolume's own group is in. Both directions of
// a relation are items; the one with the subvolume as its object is ours.
func groupAbove(volume *os.File) (group uint64, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(volume.Fd()), &fs); err != nil {
		return 0, err
	}
	if fs.Type != unix.BTRFS_SUPER_MAGIC {
		return 0, fmt.Errorf("%w: not on btrfs", storage.ErrUnsupported)
	}
	id, err := subvolumeID(volume)
	if err != nil {
		return 0, err
	}
	from := itemKey{object: id, kind: itemGroupRelation}
	to := itemKey{object: id, kind: itemGroupRelation, offset: math.MaxUint64}
	err = search(volume, treeQuotas, from, to, func(k itemKey, _ []byte) {
		if k.offset>>levelShift == 1 {
			group = k.offset
		}
	})
	if err == nil && group == 0 {
		err = fmt.Errorf("%w: in no quota group", storage.ErrUnsupported)
	}
	return group, err
}
