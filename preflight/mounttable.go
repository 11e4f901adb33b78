package preflight

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// mount is one line of proc_pid_mountinfo(5).
type mount struct {
	id, parent uint64
	dev        string // major:minor of the file system
	root       string // of the mount within it
	point      string
	fstype     string
	space      string   // mount namespace
	by         *process // one that is in it
	children   []*mount
	up         *mount // nil of a namespace's root
}

// mountTable is all mounts that the tree's processes see.
type mountTable struct {
	byID    map[uint64]*mount
	bySpace map[string][]*mount
	reloads int
	fuse    bool // somebody inside may answer for a file system
	autofs  bool
}

// mostReloads bounds how often a table is read anew for mounts that were made
// meanwhile.
const mostReloads = 4

// load reads the mounts of a process's namespace unless they are there already.
func (t *mountTable) load(r *reader, p *process) error {
	if _, ok := t.bySpace[p.mnt]; ok {
		return nil
	}
	return t.read(r, p)
}

// read adds what the process sees: less than others if its root is not theirs.
func (t *mountTable) read(r *reader, p *process) error {
	b, err := r.read(p.path+"/mountinfo", mostMounts)
	if err != nil {
		return err
	}
	list, err := parseMounts(b)
	if err != nil {
		return err
	}
	t.add(list, p)
	return nil
}

// add enters mounts that a process sees.
func (t *mountTable) add(mounts []*mount, p *process) {
	if t.byID == nil {
		t.byID, t.bySpace = map[uint64]*mount{}, map[string][]*mount{}
	}
	list := t.bySpace[p.mnt]
	for _, m := range mounts {
		if t.byID[m.id] != nil {
			continue
		}
		m.space, m.by = p.mnt, p
		t.byID[m.id] = m
		list = append(list, m)
		t.fuse = t.fuse || m.foreign()
		t.autofs = t.autofs || m.fstype == "autofs"
	}
	t.bySpace[p.mnt] = list
	for _, m := range list {
		if up := t.byID[m.parent]; m.up == nil && up != nil && up != m {
			m.up = up
			up.children = append(up.children, m)
		}
	}
}

// foreign says that a program, maybe inside, answers for the file system.
func (m *mount) foreign() bool {
	return m.fstype == "fuse" || strings.HasPrefix(m.fstype, "fuse.") || m.fstype == "fuseblk" || m.fstype == "9p" || strings.HasPrefix(m.fstype, "nfs")
}

func parseMounts(text []byte) ([]*mount, error) {
	all, err := mountinfo.GetMountsFromReader(bytes.NewReader(text), nil)
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	var list []*mount
	for _, m := range all {
		list = append(list, &mount{
			id: uint64(m.ID), parent: uint64(m.Parent), dev: fmt.Sprintf("%d:%d", m.Major, m.Minor),
			root: m.Root, point: m.Mountpoint, fstype: m.FSType,
		})
	}
	return list, nil
}

// below says that path is dir or something in it.
func below(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir) && len(path) > len(dir) && path[len(dir)] == '/'
}

// covered says that another mount hides this one: a later one on the same
// directory, or one beside it, or above, on a directory that it is below. CRIU
// has the same idea of it (mnt_is_overmounted).
func (m *mount) covered() bool {
	for _, c := range m.children {
		if c.point == m.point {
			return true
		}
	}
	for n, depth := m, 0; n.up != nil && depth < mostAncestors; n, depth = n.up, depth+1 {
		for _, sibling := range n.up.children {
			if sibling != n && below(n.point, sibling.point) {
				return true
			}
		}
	}
	return false
}

// visible is the mount that a path of the namespace leads to.
func (t *mountTable) visible(space, path string) *mount {
	var best *mount
	for _, m := range t.bySpace[space] {
		if below(path, m.point) && (best == nil || len(m.point) >= len(best.point)) && !m.covered() {
			best = m
		}
	}
	return best
}

// mountOf returns the mount of an id, nil if the tree has none such. A table that
// does not have it may be old.
func (x *examination) mountOf(r *reader, p *process, id uint64) *mount {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m := x.mounts.byID[id]; m != nil || x.mounts.reloads >= mostReloads {
		return m
	}
	x.mounts.reloads++
	if err := x.mounts.read(r, p); err != nil {
		return nil // it has ended
	}
	return x.mounts.byID[id]
}
