package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ctctl/ctctl/profile"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// Labels that libcontainer's description of a container carries, into its images too.
const (
	labelProfile  = "ctctl.profile="
	labelDelegate = "ctctl.delegate="
)

func (s Spec) labels() []string {
	p := s.profile()
	l := []string{labelProfile + p.Found.String()}
	if p.Delegate {
		l = append(l, labelDelegate+profile.Leaf)
	}
	return l
}

// delegated says whether the container's init has a cgroup of its own below the
// container's, in cgroup2.
func delegated(cfg *configs.Config) bool {
	return slices.Contains(cfg.Labels, labelDelegate+profile.Leaf)
}

// leafPaths are the cgroups of such a container's init: in version 1 hierarchies its
// own, which it can't be given. In a host with cgroup2 alone that is the only one.
func leafPaths(paths map[string]string) map[string]string {
	out := map[string]string{}
	for controller, dir := range paths {
		if controller == "" {
			dir = filepath.Join(dir, profile.Leaf)
		}
		out[controller] = dir
	}
	return out
}

// create is libcontainer.Create, but for the cgroup of a delegating container. There
// libcontainer knows one path for all hierarchies, so the container is described to
// it as one that it has forgotten to start: a state with the right paths.
func (s Spec) create(cfg *configs.Config) (*libcontainer.Container, error) {
	c, err := libcontainer.Create(s.StateDir, s.ID, cfg)
	if err != nil || !delegated(cfg) {
		return c, err
	}
	fail := func(err error) (*libcontainer.Container, error) { return nil, errors.Join(err, destroy(c)) }
	m, err := manager.New(cfg.Cgroups)
	if err != nil {
		return fail(err)
	}
	b, err := json.Marshal(libcontainer.State{
		BaseState:   libcontainer.BaseState{ID: s.ID, InitProcessPid: -1, Config: *cfg},
		CgroupPaths: leafPaths(m.GetPaths()),
	})
	if err != nil {
		return fail(err)
	}
	if err := os.WriteFile(filepath.Join(s.StateDir, s.ID, "state.json"), b, 0o600); err != nil {
		return fail(err)
	}
	loaded, err := libcontainer.Load(s.StateDir, s.ID)
	if err != nil {
		return fail(err)
	}
	return loaded, nil
}

// prepare does what the profile wants of a container whose init waits.
func (s Spec) prepare(pid int) error {
	if err := inject(pid, s.IDs, s.profile().Files); err != nil {
		return fmt.Errorf("write into the container's /run: %w", err)
	}
	if s.System {
		return allowNetSysctls(pid)
	}
	return nil
}
