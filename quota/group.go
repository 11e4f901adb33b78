package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// namePattern guards everything that writes, kills or removes: no other
// cgroup of the host can be named.
var namePattern = regexp.MustCompile(`^/ctctl-[0-9a-z-]+$`)

// Group is one cgroup name in all hierarchies. It need not exist. The zero
// Group is refused by every method that does something.
type Group struct {
	name   string
	mounts mounts
	pool   string // what Pool means, see WithPool
}

// Open finds the hierarchies by /proc/self/mountinfo. The name is "/ctctl-"
// followed by [0-9a-z-]+, else ErrBadName. Nothing is made.
func Open(name string) (Group, error) {
	m, err := readMounts()
	if err != nil {
		return Group{}, err
	}
	return openIn(m, name)
}

func openIn(m mounts, name string) (Group, error) {
	g := Group{name: name, mounts: m}
	if err := g.check(); err != nil {
		return Group{}, err
	}
	if len(m.v1) == 0 && m.unified == "" {
		return Group{}, ErrNoCgroups
	}
	return g, nil
}

func (g Group) check() error {
	if !namePattern.MatchString(g.name) {
		return fmt.Errorf("%w %q: want /ctctl- and then a-z, 0-9 or -", ErrBadName, g.name)
	}
	return nil
}

// Name returns the name it was opened with.
func (g Group) Name() string { return g.name }

// Dirs returns the group's directory in each hierarchy, whether it exists or
// not: by controller ("memory"), by name for a hierarchy without controller
// ("name=systemd"), and "" for cgroup2. Controllers that are mounted together
// have the same directory.
func (g Group) Dirs() map[string]string {
	dirs := map[string]string{}
	for c, point := range g.mounts.v1 {
		dirs[c] = point + g.name
	}
	if g.mounts.unified != "" {
		dirs[""] = g.Unified()
	}
	return dirs
}

// Unified returns the group's directory in cgroup2, "" if that is not mounted.
func (g Group) Unified() string {
	if g.mounts.unified == "" {
		return ""
	}
	return g.mounts.unified + g.name
}

// each returns every directory once, sorted.
func (g Group) each() []string {
	return slices.Compact(slices.Sorted(maps.Values(g.Dirs())))
}

// Exists tells whether the group is there in at least one hierarchy.
func (g Group) Exists() bool {
	return slices.ContainsFunc(g.each(), exists)
}

// main is the directory whose tree holds all processes of the group.
func (g Group) main() (string, error) {
	if err := g.check(); err != nil {
		return "", err
	}
	if dir := g.Unified(); dir != "" && exists(dir) {
		return dir, nil
	}
	for _, c := range [...]string{"pids", "freezer"} {
		if point, ok := g.mounts.v1[c]; ok && exists(point+g.name) {
			return point + g.name, nil
		}
	}
	return "", fmt.Errorf("%s: %w", g.name, ErrNotFound)
}

// PIDs returns the processes of the group and of all cgroups below it, sorted.
// A group that does not exist has none.
func (g Group) PIDs() ([]int, error) {
	dir, err := g.main()
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return idsBelow(dir, "cgroup.procs")
}

// allPIDs looks into every hierarchy, for a process may have been put into
// some of them only.
func (g Group) allPIDs() ([]int, error) {
	var all []int
	for _, dir := range g.each() {
		pids, err := idsBelow(dir, "cgroup.procs")
		if err != nil {
			return nil, err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// idsBelow reads the file, a list of ids, in every directory of the tree.
func idsBelow(dir, file string) ([]int, error) {
	var ids []int
	err := eachDir(dir, func(path string) error {
		words, err := readWords(filepath.Join(path, file))
		// A threaded cgroup refuses cgroup.procs; its processes are listed
		// by the domain above it, cgroups(7).
		if vanished(err) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, w := range words {
			id, err := strconv.Atoi(w)
			if err != nil || id <= 0 {
				// 0 is a process of a pid namespace that we cannot see;
				// taken for a pid it would mean our own process group.
				return fmt.Errorf("%s lists %q: a process outside this pid namespace", path, w)
			}
			ids = append(ids, id)
		}
		return nil
	})
	slices.Sort(ids)
	return slices.Compact(ids), err
}

// eachDir calls f for every directory of the tree, parents first. What
// vanishes meanwhile is skipped, as is a tree that is not there.
func eachDir(dir string, f func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if vanished(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		return f(path)
	})
}

// Make makes the group in every hierarchy, ready to take processes, and lets
// cgroup2 give it the controllers that limits need. Existing is fine. A controller
// that the kernel refuses to enable is Apply's to complain of, when a limit needs it.
func (g Group) Make() error {
	if err := g.check(); err != nil {
		return err
	}
	for _, dir := range g.each() {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	if err := g.fillCpuset(); err != nil {
		return err
	}
	return g.enableTop(nil)
}

// fillCpuset copies the parent's sets, for a new v1 cpuset is empty and then
// takes no process (ENOSPC), cpuset(7).
func (g Group) fillCpuset() error {
	point, ok := g.mounts.v1["cpuset"]
	if !ok {
		return nil
	}
	for _, f := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readText(point + g.name + "/" + f)
		if err != nil || have != "" {
			if vanished(err) { // mounted with noprefix
				continue
			}
			if err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			continue
		}
		all, err := readText(point + "/" + f)
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if err := writeText(point+g.name+"/"+f, all); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// Add puts a process into the group in every hierarchy where the group exists.
// In cgroup2 it goes to the sub-cgroup sub ("" or "." for the group itself),
// because there a cgroup with controllers enabled for its children takes no
// process of its own.
func (g Group) Add(pid int, sub string) error {
	if err := g.check(); err != nil {
		return err
	}
	if pid <= 0 {
		return fmt.Errorf("add a process to %s: bad pid %d", g.name, pid)
	}
	if sub != "" && !filepath.IsLocal(sub) {
		return fmt.Errorf("add a process to %s: bad sub-cgroup %q", g.name, sub)
	}
	added := false
	for _, dir := range g.each() {
		if !exists(dir) {
			continue
		}
		if dir == g.Unified() {
			dir = filepath.Join(dir, sub)
		}
		if err := writeText(dir+"/cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("add process %d: %w", pid, err)
		}
		added = true
	}
	if !added {
		return fmt.Errorf("add process %d: %s: %w", pid, g.name, ErrNotFound)
	}
	return nil
}

// Leftovers returns the names, as Open takes them and sorted, of the groups
// on the top level of any hierarchy for which keep is false. A nil keep keeps
// none.
func Leftovers(keep func(name string) bool) ([]string, error) {
	m, err := readMounts()
	if err != nil {
		return nil, err
	}
	return m.leftovers(keep)
}

func (m mounts) leftovers(keep func(name string) bool) ([]string, error) {
	points := slices.Collect(maps.Values(m.v1))
	if m.unified != "" {
		points = append(points, m.unified)
	}
	var names []string
	for _, point := range points {
		entries, err := os.ReadDir(point)
		if err != nil {
			return nil, fmt.Errorf("list cgroups: %w", err)
		}
		for _, e := range entries {
			name := "/" + e.Name()
			if !e.IsDir() || !strings.HasPrefix(name, "/ctctl-") || !namePattern.MatchString(name) {
				continue
			}
			if keep == nil || !keep(name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
