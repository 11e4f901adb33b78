package quota

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Restorer is the cgroup below a group, in cgroup2 only, for who restores the
// container's processes: in the container's own cgroup it would keep controllers
// from being enabled there.
const Restorer = "restore"

// MakeTree makes the container's own cgroup as it was recorded, with ids as the
// range that the container has now. Existing cgroups are adjusted. It comes before
// the processes; controllers and settings are EnableTree's and SetTree's. An empty
// tree, or a host without cgroup2, needs nothing.
func (g Group) MakeTree(t Tree, ids IDs) error {
	if err := g.check(); err != nil {
		return err
	}
	if g.OwnDir() == "" || len(t.Dirs) == 0 {
		return nil
	}
	list, err := t.sorted()
	if err == nil && list[0].Path != "." {
		err = errors.New("the recorded tree has no top")
	}
	if err != nil {
		return fmt.Errorf("make the cgroups of %s: %w", g.name, err)
	}
	move := shift{from: t.IDs, to: ids}
	for _, d := range list {
		if err := d.make(filepath.Join(g.OwnDir(), string(d.Path)), move); err != nil {
			return fmt.Errorf("make the cgroups of %s: %q: %w", g.name, string(d.Path), err)
		}
	}
	return g.bound(MostCgroups + 1) // Restorer is still to come
}

func (d Dir) make(path string, move shift) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if d.Threaded {
		if err := writeText(path+"/cgroup.type", "threaded"); err != nil {
			return err
		}
	}
	return d.own(path, move)
}

// own gives a cgroup and its files to who had them.
func (d Dir) own(path string, move shift) error {
	maker, err := move.owner(d.Maker)
	if err != nil {
		return err
	}
	owner, err := move.owner(d.Owner)
	if err != nil {
		return err
	}
	if err := chownFiles(path, maker); err != nil {
		return err
	}
	for f, o := range d.Given {
		if !slices.Contains(delegable[:], f) {
			return fmt.Errorf("the record gives %q away", f)
		}
		if o, err = move.owner(o); err != nil {
			return err
		}
		// A controller of the host before may be missing here.
		err := os.Lchown(filepath.Join(path, f), int(o.UID), int(o.GID))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Chmod(path, fs.FileMode(d.Mode&0o777)); err != nil {
		return err
	}
	return os.Lchown(path, int(owner.UID), int(owner.GID))
}

// chownFiles gives the files of a cgroup, not those below it, to who made it: the
// files of a new one are its maker's, which is this process here.
func chownFiles(path string, o Owner) error {
	if o == (Owner{}) {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() {
			continue
		}
		if err := unix.Fchownat(int(dir.Fd()), e.Name(), int(o.UID), int(o.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &fs.PathError{Op: "chown", Path: filepath.Join(path, e.Name()), Err: err}
		}
	}
	return nil
}

// shift moves ids from one range to another.
type shift struct{ from, to IDs }

func (s shift) owner(o Owner) (Owner, error) {
	uid, err := s.id(o.UID)
	if err != nil {
		return Owner{}, err
	}
	gid, err := s.id(o.GID)
	return Owner{UID: uid, GID: gid}, err
}

// id: the host's root, which owns what the container was not given, stays. Of other
// ids only those of the container's range are taken.
func (s shift) id(id uint32) (uint32, error) {
	switch {
	case (s.from.Size == 0) != (s.to.Size == 0):
		return 0, errors.New("the record and the container differ in their use of a user namespace")
	case id == 0 || s.from.Size == 0:
		return id, nil
	case id < s.from.Base || id-s.from.Base >= min(s.from.Size, s.to.Size):
		return 0, fmt.Errorf("id %d is not one of the container's", id)
	}
	return id - s.from.Base + s.to.Base, nil
}

// EnableTree turns on the controllers of a tree, parents first. It comes when the
// tasks have left the upper cgroups, which take no processes from then on, and
// before they open files there. It returns the controllers that this host's cgroup2
// does not offer to the group, sorted; they are left out. Their files have owners,
// too: ids are as in MakeTree.
func (g Group) EnableTree(t Tree, ids IDs) (missing []string, err error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	list, err := t.sorted()
	if err != nil {
		return nil, fmt.Errorf("enable controllers of %s: %w", g.name, err)
	}
	if len(list) > 0 && g.OwnDir() != "" {
		if err := g.enableOwn(); err != nil {
			return nil, fmt.Errorf("enable controllers of %s: %w", g.name, err)
		}
	}
	for _, d := range list {
		if len(d.Controllers) == 0 {
			continue
		}
		if g.OwnDir() == "" {
			missing = append(missing, d.Controllers...)
			continue
		}
		lacks, err := enable(filepath.Join(g.OwnDir(), string(d.Path)), d.Controllers)
		if err != nil {
			return nil, fmt.Errorf("enable controllers of %s: %w", g.name, err)
		}
		missing = append(missing, lacks...)
	}
	if g.OwnDir() != "" {
		err = g.ownTree(list, shift{from: t.IDs, to: ids})
	}
	slices.Sort(missing)
	return slices.Compact(missing), err
}

// ownTree gives the files that have come with controllers to who had them.
func (g Group) ownTree(list []Dir, move shift) error {
	if !slices.ContainsFunc(list, func(d Dir) bool { return len(d.Controllers) > 0 }) {
		return nil
	}
	for _, d := range list {
		if err := d.own(filepath.Join(g.OwnDir(), string(d.Path)), move); err != nil {
			return fmt.Errorf("give %q of %s to the container: %w", string(d.Path), g.name, err)
		}
	}
	return nil
}

// enableOwn passes all controllers of the group on to the container's own cgroup.
func (g Group) enableOwn() error {
	all, err := readWords(g.Unified() + "/cgroup.controllers")
	if err != nil {
		return err
	}
	_, err = enable(g.Unified(), all)
	return err
}

// enable turns controllers on for the children of a cgroup and returns those that
// it does not have.
func enable(path string, want []string) (missing []string, err error) {
	offered, err := readWords(path + "/cgroup.controllers")
	if err != nil {
		return nil, err
	}
	on, err := readWords(path + "/cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	var add []string
	for _, c := range want {
		switch {
		case slices.Contains(on, c):
		case slices.Contains(offered, c):
			add = append(add, "+"+c)
		default:
			missing = append(missing, c)
		}
	}
	if len(add) == 0 {
		return missing, nil
	}
	return missing, writeText(path+"/cgroup.subtree_control", strings.Join(add, " "))
}

// RemoveRestorer removes the cgroup Restorer once CRIU has ended, and leaves no room
// for another one. Absent is fine.
func (g Group) RemoveRestorer(ctx context.Context) error {
	if err := g.check(); err != nil || g.Unified() == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	if err := removeTree(ctx, filepath.Join(g.Unified(), Restorer)); err != nil {
		return fmt.Errorf("remove the restorer's cgroup: %w", err)
	}
	return g.BoundTree()
}
