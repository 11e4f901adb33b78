package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer"
)

// beside is the container as libcontainer has to see it for a command to be put
// into the cgroup that init is in. In cgroup2 that one takes processes for sure,
// while the container's own, above it, takes none as soon as init has enabled
// controllers there. In version 1 hierarchies nothing is different.
//
// libcontainer takes the cgroup from its state, or one name below it for all
// hierarchies; so it gets a state of its own, until done is called.
func (c *Container) beside() (at *libcontainer.Container, done func() error, err error) {
	done = func() error { return nil }
	cfg := c.c.Config()
	if !delegated(&cfg) {
		return c.c, done, nil
	}
	st, err := c.c.State()
	if err != nil {
		return nil, done, err
	}
	own, err := unifiedOf(st.InitProcessPid)
	if err != nil {
		return nil, done, err
	}
	if st.CgroupPaths[""], err = descend(st.CgroupPaths[""], own); err != nil {
		return nil, done, err
	}
	b, err := json.Marshal(st)
	if err != nil {
		return nil, done, err
	}
	root, err := os.MkdirTemp(c.dir, "exec-")
	if err != nil {
		return nil, done, err
	}
	dir := filepath.Join(root, st.ID)
	file := filepath.Join(dir, "state.json")
	done = func() error {
		return errors.Join(ignoreAbsent(os.Remove(file)), ignoreAbsent(os.Remove(dir)), os.Remove(root))
	}
	if err = os.Mkdir(dir, 0o700); err == nil {
		err = os.WriteFile(file, b, 0o600)
	}
	if err == nil {
		at, err = libcontainer.Load(root, st.ID)
	}
	if err != nil {
		return nil, done, errors.Join(err, done())
	}
	return at, done, nil
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// unifiedOf is the cgroup of a process in cgroup2 as the host sees it.
func unifiedOf(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", fmt.Errorf("find init's cgroup: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("init is in no cgroup of version 2")
}

// descend replaces the end of dir, which is where the container's own cgroup is
// mounted, by own, a cgroup at or below it.
func descend(dir, own string) (string, error) {
	for cut := own; cut != "/" && cut != "."; cut = filepath.Dir(cut) {
		if point, ok := strings.CutSuffix(dir, cut); ok && filepath.IsLocal(strings.TrimPrefix(own, "/")) {
			return filepath.Join(point, own), nil
		}
	}
	return "", fmt.Errorf("init is in the cgroup %q, not below %s", own, dir)
}
