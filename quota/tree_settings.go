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

// setting is a file of a cgroup that somebody inside may have written to.
type setting struct {
	controller string // "" is the core's
	file       string
	fresh      string // what a new cgroup has
}

// settings in the order in which they are written: a cgroup that is idle has no
// weight, and a partition needs its CPUs. What counts, resets or acts is none:
// memory.peak, cgroup.kill, memory.reclaim.
var settings = []setting{
	{"", "cgroup.max.depth", "max"},
	{"", "cgroup.max.descendants", "max"},
	{"", "cgroup.pressure", "1"},
	{"cpuset", "cpuset.cpus", ""},
	{"cpuset", "cpuset.mems", ""},
	{"cpuset", "cpuset.cpus.exclusive", ""},
	{"cpuset", "cpuset.cpus.partition", "member"},
	{"cpu", "cpu.weight", "100"},
	{"cpu", "cpu.max", "max 100000"},
	{"cpu", "cpu.max.burst", "0"},
	{"cpu", "cpu.idle", "0"},
	{"cpu", "cpu.uclamp.min", "0.00"},
	{"cpu", "cpu.uclamp.max", "max"},
	{"io", "io.weight", "default 100"},
	{"io", "io.bfq.weight", "default 100"},
	{"io", "io.max", ""},
	{"io", "io.latency", ""},
	{"memory", "memory.min", "0"},
	{"memory", "memory.low", "0"},
	{"memory", "memory.high", "max"},
	{"memory", "memory.max", "max"},
	{"memory", "memory.swap.high", "max"},
	{"memory", "memory.swap.max", "max"},
	{"memory", "memory.zswap.max", "max"},
	{"memory", "memory.zswap.writeback", "1"},
	{"memory", "memory.oom.group", "0"},
	{"pids", "pids.max", "max"},
}

// settingLimit bounds the text of one file; io.max has a line for each disk.
const settingLimit = 64 << 10

// readSettings returns what differs from a new cgroup.
func readSettings(path string) (map[string]string, error) {
	have, err := readWords(path + "/cgroup.controllers")
	if err != nil {
		return nil, err
	}
	var out map[string]string
	for _, s := range settings {
		if s.controller != "" && !slices.Contains(have, s.controller) {
			continue
		}
		value, err := readText(filepath.Join(path, s.file))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without it, or a file that is there but not in use
		}
		if err != nil {
			return nil, err
		}
		if s.file == "cpuset.cpus.partition" {
			value, _, _ = strings.Cut(value, " ") // "root invalid (why)"
		}
		idle := s.file == "cpu.weight" && value == "0" // see cpu.idle
		if value == s.fresh || idle || len(value) > settingLimit {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[s.file] = value
	}
	return out, nil
}

// attributeSpaces are the name spaces that cgroup2 keeps. systemd notes there
// which cgroups it has delegated and the invocations of units.
var attributeSpaces = []string{"user.", "trusted."}

// attributeLimit bounds the names and each value; the kernel has 64 KiB for both.
const attributeLimit = 64 << 10

func readAttributes(path string) (map[string][]byte, error) {
	buf := make([]byte, attributeLimit)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.EOPNOTSUPP) || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var out map[string][]byte
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !isAttribute(name) {
			continue
		}
		value := make([]byte, attributeLimit)
		n, err := unix.Lgetxattr(path, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = value[:n]
	}
	return out, nil
}

func isAttribute(name string) bool {
	return slices.ContainsFunc(attributeSpaces, func(space string) bool { return strings.HasPrefix(name, space) })
}

// mostRefused bounds what SetTree reports.
const mostRefused = 20

// SetTree gives the cgroups of a tree what was set inside: limits, attributes, and
// who was frozen. It comes when all tasks are there and none has run. What can't
// be set here (a disk that is not there, a controller that is missing) is returned,
// in sentences, and left out.
func (g Group) SetTree(t Tree) (refused []string, err error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	list, err := t.sorted()
	if err != nil {
		return nil, fmt.Errorf("set the cgroups of %s: %w", g.name, err)
	}
	for _, d := range list {
		errs := d.set(filepath.Join(g.OwnDir(), string(d.Path)))
		for _, err := range errs {
			if len(refused) < mostRefused {
				refused = append(refused, fmt.Sprintf("%q: %v", string(d.Path), err))
			}
		}
	}
	return refused, nil
}

func (d Dir) set(path string) (errs []error) {
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	for name, value := range d.Attributes {
		if !isAttribute(name) {
			continue
		}
		if err := unix.Lsetxattr(path, name, value, 0); err != nil {
			add(fmt.Errorf("attribute %q: %w", name, err))
		}
	}
	// Limits of the top are the host's, which has none there.
	if d.Path != "." {
		for _, s := range settings {
			if value, ok := d.Settings[s.file]; ok {
				add(setLines(filepath.Join(path, s.file), value))
			}
		}
	}
	if d.Frozen {
		add(writeText(path+"/cgroup.freeze", "1"))
	}
	return errs
}

// setLines writes line by line, as files with a line for each disk want it.
func setLines(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(value) {
		_, err := f.WriteString(strings.TrimSpace(line))
		if err != nil {
			err = fmt.Errorf("%w: %q", err, strings.TrimSpace(line))
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, f.Close())...)
}
