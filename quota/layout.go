package quota

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Modes of Layout.
const (
	ModeV1     = "v1"
	ModeHybrid = "hybrid"
	ModeV2     = "v2"
)

// Layout says how the host's cgroups are mounted.
type Layout struct {
	Mode        string   // ModeV1, ModeHybrid or ModeV2
	Controllers []string // usable ones of all hierarchies, sorted; without named hierarchies
	Unified     string   // mount point of cgroup2, "" if there is none

	freezer bool
}

// Probe looks at the host. ErrNoCgroups if nothing is mounted.
func Probe() (Layout, error) {
	m, err := readMounts()
	if err != nil {
		return Layout{}, err
	}
	return m.layout()
}

// Missing returns what limits and checkpoints need and the host lacks: of cpu,
// memory, pids and freezer.
func (l Layout) Missing() []string {
	var missing []string
	for _, c := range [...]string{"cpu", "memory", "pids"} {
		if !slices.Contains(l.Controllers, c) {
			missing = append(missing, c)
		}
	}
	if !l.freezer {
		missing = append(missing, "freezer")
	}
	return missing
}

// mounts are the mount points of the hierarchies. Tests make one over a
// temporary directory.
type mounts struct {
	v1      map[string]string // controller or "name=…" → mount point
	unified string
	disks   func(path string) ([]string, error) // nil: disksOf
	write   func(path, value string) error      // nil: writeText
}

func readMounts() (mounts, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mounts{}, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads mountinfo, proc_pid_mountinfo(5). A hierarchy may be
// mounted more than once (binds, chroots): a mount of the hierarchy's root goes
// before a mount of a part, one below /sys/fs/cgroup before one elsewhere,
// an earlier one before a later one.
func parseMounts(r io.Reader) (mounts, error) {
	m := mounts{v1: map[string]string{}}
	rank := map[string]int{}
	better := func(key string, n int) bool {
		old, seen := rank[key]
		if !seen || n > old {
			rank[key] = n
			return true
		}
		return false
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20) // an overlay's options can be very long
	for sc.Scan() {
		e, ok := parseMountLine(sc.Text())
		if !ok {
			continue
		}
		if e.fstype == "cgroup2" {
			if better("", e.rank()) {
				m.unified = e.point
			}
			continue
		}
		for _, c := range e.controllers() {
			if better(c, e.rank()) {
				m.v1[c] = e.point
			}
		}
	}
	if err := sc.Err(); err != nil {
		return mounts{}, fmt.Errorf("find cgroup hierarchies: %w", err)
	}
	return m, nil
}

type mountEntry struct{ root, point, fstype, super string }

func parseMountLine(line string) (mountEntry, bool) {
	left, right, ok := strings.Cut(line, " - ")
	if !ok {
		return mountEntry{}, false
	}
	a, b := strings.Fields(left), strings.Fields(right)
	if len(a) < 6 || len(b) < 3 || b[0] != "cgroup" && b[0] != "cgroup2" {
		return mountEntry{}, false
	}
	return mountEntry{root: a[3], point: unescape(a[4]), fstype: b[0], super: b[2]}, true
}

func (e mountEntry) rank() int {
	n := 0
	if e.root == "/" {
		n += 2
	}
	if e.point == "/sys/fs/cgroup" || strings.HasPrefix(e.point, "/sys/fs/cgroup/") {
		n++
	}
	return n
}

// controllers are the super block options of a v1 mount that are not flags.
func (e mountEntry) controllers() []string {
	var list []string
	for o := range strings.SplitSeq(e.super, ",") {
		key, _, _ := strings.Cut(o, "=")
		switch key {
		case "rw", "ro", "xattr", "noprefix", "clone_children", "release_agent", "cpuset_v2_mode",
			"favordynmods", "nofavordynmods", "none", "seclabel":
		default:
			list = append(list, o)
		}
	}
	return list
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (m mounts) layout() (Layout, error) {
	l := Layout{Unified: m.unified}
	for c := range m.v1 {
		if !strings.HasPrefix(c, "name=") {
			l.Controllers = append(l.Controllers, c)
		}
	}
	_, l.freezer = m.v1["freezer"]
	switch {
	case m.unified == "" && len(m.v1) == 0:
		return Layout{}, ErrNoCgroups
	case m.unified == "":
		l.Mode = ModeV1
	case len(l.Controllers) > 0:
		l.Mode = ModeHybrid
	default:
		l.Mode = ModeV2
	}
	if m.unified != "" {
		l.freezer = true // core since Linux 5.2
		more, err := readWords(m.unified + "/cgroup.controllers")
		if err != nil {
			return Layout{}, err
		}
		l.Controllers = append(l.Controllers, more...)
	}
	slices.Sort(l.Controllers)
	l.Controllers = slices.Compact(l.Controllers)
	return l, nil
}
