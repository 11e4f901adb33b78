package btrfs

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// destroyInside removes the subvolumes inside a volume by their ids, deepest
// first: their paths belong to the container.
func (d *Driver) destroyInside(dir *os.File, name string) (err error) {
	v, err := openVolume(dir, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	id, err := subvolumeID(v)
	if err != nil {
		return err
	}
	nested := []uint64{id}
	for i := 0; i < len(nested); i++ {
		children, err := childSubvolumes(dir, nested[i])
		if err != nil {
			return err
		}
		nested = append(nested, children...)
	}
	err = destroyNested(dir, nested)
	if errors.Is(err, unix.EDQUOT) {
		return withoutGroups(dir, nested, func() error { return destroyNested(dir, nested) })
	}
	return err
}

// destroyNested destroys all but the first.
func destroyNested(dir *os.File, nested []uint64) error {
	for _, id := range slices.Backward(nested[1:]) {
		if err := destroySubvolumeByID(dir, id); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("delete inner subvolume %d: %w", id, err)
		}
	}
	return nil
}

// withoutGroups takes subvolumes out of their groups while f runs: removing a
// subvolume reserves room in the one around it, which a full group has not. They
// join again afterwards, also those that are destroyed, since data that
// snapshots share with them stays charged to them.
func withoutGroups(dir *os.File, subvolumes []uint64, f func() error) error {
	t, err := readQuotaTree(dir)
	if err != nil {
		return err
	}
	each := func(change func(top *os.File, subvolume, group uint64) error, harmless error) error {
		var errs []error
		for _, id := range subvolumes {
			for _, group := range t.parents[id] {
				if err := change(dir, id, group); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, harmless) {
					errs = append(errs, fmt.Errorf("quota group of subvolume %d: %w", id, err))
				}
			}
		}
		return errors.Join(errs...)
	}
	err = each(unassignGroup, unix.ENOENT)
	if err == nil {
		err = f()
	}
	return errors.Join(err, each(assignGroup, unix.EEXIST))
}
