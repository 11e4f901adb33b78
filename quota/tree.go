package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is one directory of a group's tree in cgroup2.
type Dir struct {
	Path        string   `json:"path"` // relative to the group, "." for the group itself
	UID         int      `json:"uid"`  // as the host sees it
	GID         int      `json:"gid"`
	Mode        uint32   `json:"mode"`                  // permission bits
	Controllers []string `json:"controllers,omitempty"` // enabled for the children: cgroup.subtree_control
}

// Tree returns the group's directories in cgroup2, parents first. CRIU
// re-creates only cgroups that hold tasks, without owners, so this is recorded
// beside its images. A host without cgroup2, or a group that is not there, has
// none.
func (g Group) Tree() ([]Dir, error) {
	top := g.Unified()
	if top == "" {
		return nil, nil
	}
	var tree []Dir
	err := eachDir(top, func(path string) error {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			if vanished(err) {
				return nil
			}
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		on, err := readWords(path + "/cgroup.subtree_control")
		if vanished(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		tree = append(tree, Dir{Path: rel, UID: int(st.Uid), GID: int(st.Gid), Mode: st.Mode & 0o7777, Controllers: on})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record the cgroup tree of %s: %w", g.name, err)
	}
	return tree, nil
}

// delegated are the files whose owner decides who may run the subtree,
// cgroups(7), "Cgroup delegation".
var delegated = [...]string{"", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"}

// MakeTree makes the directories in cgroup2 and gives them and their control
// files owner and mode. shift is added to every uid and gid except 0, which is
// the host's root and not one of a container's range: it moves a tree from one
// id range to another. Existing directories are adjusted. Controllers are
// EnableTree's to turn on. On a host without cgroup2 nothing is done.
func (g Group) MakeTree(tree []Dir, shift int64) error {
	if err := g.check(); err != nil {
		return err
	}
	top := g.Unified()
	if top == "" {
		return nil
	}
	sorted, err := parentsFirst(tree)
	if err != nil {
		return fmt.Errorf("make the cgroup tree of %s: %w", g.name, err)
	}
	for _, d := range sorted {
		if err := d.make(filepath.Join(top, d.Path), shift); err != nil {
			return fmt.Errorf("make the cgroup tree of %s: %w", g.name, err)
		}
	}
	return nil
}

func (d Dir) make(path string, shift int64) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	uid, err := shifted(d.UID, shift)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Path, err)
	}
	gid, err := shifted(d.GID, shift)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Path, err)
	}
	if err := os.Chmod(path, fs.FileMode(d.Mode&0o777)); err != nil {
		return err
	}
	for _, f := range delegated {
		if err := os.Lchown(path+f, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func shifted(id int, shift int64) (int, error) {
	if id == 0 {
		return 0, nil
	}
	n := int64(id) + shift
	if id < 0 || n <= 0 || n >= 1<<32-1 { // 2^32-1 is (uid_t)-1, "leave unchanged"
		return 0, fmt.Errorf("id %d shifted by %d is no user id", id, shift)
	}
	return int(n), nil
}

// EnableTree turns on the controllers of the tree, parents first. Restoring
// does that when the tasks have left the upper cgroups and before they open
// files there. It returns the controllers that this host's cgroup2 does not
// offer to the group, sorted; they are left out.
func (g Group) EnableTree(tree []Dir) (missing []string, err error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	sorted, err := parentsFirst(tree)
	if err != nil {
		return nil, fmt.Errorf("enable controllers of %s: %w", g.name, err)
	}
	for _, d := range sorted {
		if len(d.Controllers) == 0 {
			continue
		}
		if g.Unified() == "" {
			missing = append(missing, d.Controllers...)
			continue
		}
		lacks, err := d.enable(filepath.Join(g.Unified(), d.Path))
		if err != nil {
			return nil, fmt.Errorf("enable controllers of %s: %w", g.name, err)
		}
		missing = append(missing, lacks...)
	}
	slices.Sort(missing)
	return slices.Compact(missing), nil
}

func (d Dir) enable(path string) (missing []string, err error) {
	offered, err := readWords(path + "/cgroup.controllers")
	if err != nil {
		return nil, err
	}
	on, err := readWords(path + "/cgroup.subtree_control")
	if err != nil {
		return nil, err
	}
	var add []string
	for _, c := range d.Controllers {
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

// parentsFirst refuses paths that lead out of the group, for a tree may come
// from another host, and sorts.
func parentsFirst(tree []Dir) ([]Dir, error) {
	sorted := slices.Clone(tree)
	for i, d := range sorted {
		if !filepath.IsLocal(d.Path) {
			return nil, fmt.Errorf("bad path %q in the recorded tree", d.Path)
		}
		sorted[i].Path = filepath.Clean(d.Path)
	}
	depth := func(d Dir) int {
		if d.Path == "." {
			return 0
		}
		return 1 + strings.Count(d.Path, "/")
	}
	slices.SortStableFunc(sorted, func(a, b Dir) int {
		if n := depth(a) - depth(b); n != 0 {
			return n
		}
		return strings.Compare(a.Path, b.Path)
	})
	return sorted, nil
}
