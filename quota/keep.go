package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// keepName is a cgroup without processes at the top level of cgroup2. It turns the
// controllers on for children that it does not have, and so long the kernel
// refuses to turn them off above it (EBUSY). systemd knows only of its own units:
// whenever it starts or stops one after a reload, it turns off at the top what
// none of them needs, usually cpu, cpuset and io, and the limits of all our groups
// would be gone. It is no group's name.
const keepName = "/ctctl.keep"

// keepTries bounds how often keeping is tried anew. Each time somebody must have
// turned a controller off, or removed the cgroup, in the moment between two steps.
const keepTries = 10

// keep enables controllers at the top and below keepName. One that is refused, and
// that needed names no limit for, is left alone. What one step did may be undone
// before the next: then something has vanished.
func (m mounts) keep(controllers []string, needed map[string]string) error {
	dir := m.unified + keepName
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep controllers enabled: %w", err)
	}
	for _, d := range [...]string{m.unified, dir} {
		control := d + "/cgroup.subtree_control"
		on, err := readWords(control)
		if err != nil {
			return fmt.Errorf("enable controllers: %w", err)
		}
		for _, c := range controllers {
			if slices.Contains(on, c) {
				continue
			}
			if err := m.put(control, "+"+c); err != nil && needed[c] != "" {
				return fmt.Errorf("%s: enable the %s controller: %w", needed[c], c, err)
			}
		}
	}
	return nil
}

// release removes keepName when no group is left at the top level. Who makes a
// group makes its directory first and then keeps controllers, so that one of the
// two sees the other.
func (m mounts) release() error {
	if m.unified == "" {
		return nil
	}
	if used, err := m.used(); used || err != nil {
		return err
	}
	if err := unix.Rmdir(m.unified + keepName); err != nil {
		if vanished(err) {
			return nil // another one has removed it, or it was not needed
		}
		return fmt.Errorf("remove cgroup: %w", err)
	}
	used, err := m.used()
	if !used || err != nil {
		return err
	}
	return Group{mounts: m}.enableTop(nil)
}

// used tells whether cgroup2 has a group of ours at its top level.
func (m mounts) used() (bool, error) {
	entries, err := os.ReadDir(m.unified)
	if err != nil {
		return false, fmt.Errorf("list cgroups: %w", err)
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.IsDir() && strings.HasPrefix(e.Name(), "ctctl-") && namePattern.MatchString("/"+e.Name())
	}), nil
}
