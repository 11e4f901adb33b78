package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Own is the cgroup below a group, in cgroup2 only, that is the container's to
// divide as it likes: its root owns it and the cgroup namespace begins there. The
// limits stay above it, out of reach.
const Own = "init"

// MostCgroups is how many cgroups a container may have in its own tree. It bounds
// what is read while the container stands still: a root inside can make cgroups
// faster than they can be looked at.
const MostCgroups = 4096

// deepest is how deep they may be below the group: with the longest names the path
// of a file still is one.
const deepest = 14

// treeBytes bounds the text of a recorded tree: paths, settings, attributes.
const treeBytes = 4 << 20

// IDs is the range of host ids that a container's ids 0…Size-1 are; the zero value
// is the host's own.
type IDs struct {
	Base uint32 `json:"base"`
	Size uint32 `json:"size"`
}

// Tree is what a container has made of its own cgroup in cgroup2.
type Tree struct {
	IDs  IDs   `json:"ids"` // at the time of the record
	Dirs []Dir `json:"dirs"`
}

// Dir is one cgroup of a tree.
type Dir struct {
	Path  Path   `json:"path"` // relative to the container's own cgroup, "." for that itself
	Owner Owner  `json:"owner"`
	Mode  uint32 `json:"mode"` // permission bits
	// Maker owns the files of the cgroup, but for those in Given.
	Maker Owner            `json:"maker"`
	Given map[string]Owner `json:"given,omitempty"` // by file: cgroup.procs and its like

	Threaded    bool     `json:"threaded,omitempty"`
	Frozen      bool     `json:"frozen,omitempty"`      // by somebody inside
	Controllers []string `json:"controllers,omitempty"` // enabled for the children: cgroup.subtree_control
	// Settings are the files that do not hold what they hold in a new cgroup.
	Settings map[string]string `json:"settings,omitempty"`
	// Attributes are the extended attributes user.* and trusted.*.
	Attributes map[string][]byte `json:"attributes,omitempty"`
}

// Owner is a user and a group as the host sees them.
type Owner struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Path is a relative path. In JSON everything but printable ASCII is escaped as in
// a Go string, for a cgroup's name may be any bytes.
type Path string

// MarshalText escapes.
func (p Path) MarshalText() ([]byte, error) {
	q := strconv.QuoteToASCII(string(p))
	return []byte(q[1 : len(q)-1]), nil
}

// UnmarshalText undoes MarshalText.
func (p *Path) UnmarshalText(b []byte) error {
	s, err := strconv.Unquote(`"` + string(b) + `"`)
	if err != nil {
		return fmt.Errorf("bad path %q", b)
	}
	*p = Path(s)
	return nil
}

// delegable are the files whose owner decides who may run the subtree:
// cgroups(7), "Cgroup delegation", and /sys/kernel/cgroup/delegate.
var delegable = [...]string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group", "memory.reclaim"}

// OwnDir returns the directory of the container's own cgroup, whether it exists or
// not; "" on a host without cgroup2.
func (g Group) OwnDir() string {
	if g.Unified() == "" {
		return ""
	}
	return filepath.Join(g.Unified(), Own)
}

// Delegated tells whether the container has a cgroup of its own.
func (g Group) Delegated() bool { return g.OwnDir() != "" && exists(g.OwnDir()) }

// Delegate makes the container's own cgroup, gives it to uid and gid, and bounds
// how many there can be below it. Existing is fine; without cgroup2 it does nothing.
func (g Group) Delegate(uid, gid uint32) error {
	if err := g.check(); err != nil {
		return err
	}
	dir := g.OwnDir()
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the container's own cgroup: %w", err)
	}
	if err := g.BoundTree(); err != nil {
		return err
	}
	for _, f := range [...]string{"", delegable[0], delegable[1], delegable[2]} {
		if err := os.Lchown(filepath.Join(dir, f), int(uid), int(gid)); err != nil {
			return fmt.Errorf("give the container its cgroup: %w", err)
		}
	}
	return nil
}

// BoundTree limits the cgroups that the container can make in its own, in files
// that stay the host's. A group without one of its own needs nothing.
func (g Group) BoundTree() error {
	if err := g.check(); err != nil || !g.Delegated() {
		return err
	}
	return g.bound(MostCgroups)
}

func (g Group) bound(most int) error {
	err := writeText(g.Unified()+"/cgroup.max.descendants", strconv.Itoa(most))
	if err == nil {
		err = writeText(g.Unified()+"/cgroup.max.depth", strconv.Itoa(deepest))
	}
	if err != nil {
		return fmt.Errorf("bound the container's cgroups: %w", err)
	}
	return nil
}

// CheckTree tells, quickly, whether Tree would find too many cgroups; the error is
// ErrTooManyCgroups.
func (g Group) CheckTree() error {
	if !g.Delegated() {
		return nil
	}
	stat, err := readKeys(g.OwnDir() + "/cgroup.stat")
	if vanished(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("count the cgroups of %s: %w", g.name, err)
	}
	if n := stat["nr_descendants"] + 1; n > MostCgroups {
		return fmt.Errorf("%w: %d, at most %d can be recorded", ErrTooManyCgroups, n, MostCgroups)
	}
	return nil
}

// Tree records the container's own cgroup and those below it, parents first. CRIU
// re-creates only cgroups that hold tasks, so this is kept beside its images. To be
// called while nothing runs in there. A group without one of its own has an empty
// tree. The error matches ErrTooManyCgroups if there is more than can be kept.
func (g Group) Tree(ids IDs) (Tree, error) {
	t := Tree{IDs: ids}
	if !g.Delegated() {
		return t, nil
	}
	top := g.OwnDir()
	room := treeBytes
	err := eachDir(top, func(path string) error {
		if len(t.Dirs) == MostCgroups {
			return fmt.Errorf("%w: more than %d", ErrTooManyCgroups, MostCgroups)
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		d, err := readDir(path)
		if vanished(err) {
			return nil
		}
		if err != nil {
			return err
		}
		d.Path = Path(rel)
		if room -= d.size(); room < 0 {
			return fmt.Errorf("%w: their names and settings have more than %s", ErrTooManyCgroups, FormatBytes(treeBytes))
		}
		t.Dirs = append(t.Dirs, d)
		return nil
	})
	if err != nil {
		return Tree{}, fmt.Errorf("record the cgroups of %s: %w", g.name, err)
	}
	return t, nil
}

func readDir(path string) (d Dir, err error) {
	var mode uint32
	if d.Owner, mode, err = ownerOf(path); err != nil {
		return d, err
	}
	d.Mode = mode & 0o7777
	// Nobody is given this one.
	if d.Maker, _, err = ownerOf(path + "/cgroup.controllers"); err != nil {
		return d, err
	}
	for _, f := range delegable {
		o, _, err := ownerOf(filepath.Join(path, f))
		if errors.Is(err, fs.ErrNotExist) { // of a controller that is not here
			continue
		}
		if err != nil {
			return d, err
		}
		if o != d.Maker {
			if d.Given == nil {
				d.Given = map[string]Owner{}
			}
			d.Given[f] = o
		}
	}
	if d.Controllers, err = readWords(path + "/cgroup.subtree_control"); err != nil {
		return d, err
	}
	kind, err := readText(path + "/cgroup.type")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	freeze, err := readText(path + "/cgroup.freeze")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	d.Threaded, d.Frozen = kind == "threaded", freeze == "1"
	if d.Settings, err = readSettings(path); err != nil {
		return d, err
	}
	d.Attributes, err = readAttributes(path)
	return d, err
}

func ownerOf(path string) (Owner, uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Owner{}, 0, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return Owner{UID: st.Uid, GID: st.Gid}, st.Mode, nil
}

// size is about how much text it is.
func (d Dir) size() int {
	n := len(d.Path)
	for k, v := range d.Settings {
		n += len(k) + len(v)
	}
	for k, v := range d.Attributes {
		n += len(k) + len(v)
	}
	return n
}

// sorted refuses what no record of a container has, for an image may come from
// elsewhere, and puts parents first.
func (t Tree) sorted() ([]Dir, error) {
	if len(t.Dirs) > MostCgroups {
		return nil, fmt.Errorf("%w: %d in the record", ErrTooManyCgroups, len(t.Dirs))
	}
	list := slices.Clone(t.Dirs)
	for i, d := range list {
		if !filepath.IsLocal(string(d.Path)) {
			return nil, fmt.Errorf("bad path %q in the recorded tree", string(d.Path))
		}
		list[i].Path = Path(filepath.Clean(string(d.Path)))
	}
	depth := func(d Dir) int {
		if d.Path == "." {
			return 0
		}
		return 1 + strings.Count(string(d.Path), "/")
	}
	slices.SortStableFunc(list, func(a, b Dir) int {
		if n := depth(a) - depth(b); n != 0 {
			return n
		}
		return strings.Compare(string(a.Path), string(b.Path))
	})
	return list, nil
}
