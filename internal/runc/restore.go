package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ctctl/ctctl/quota"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/system"
)

// Restored is a container that CRIU is bringing back.
type Restored struct {
	stateDir, id string
	spec         Spec
	cfg          *configs.Config
	cgroup       cgroups.Manager // of the container's init
	entry        cgroups.Manager // where CRIU begins
}

// Restore prepares the runtime side of a restore from the description that
// Container.Config gave at the dump. s overrides what may differ now: id, state
// directory, root, cgroup, id range.
func Restore(dumped json.RawMessage, s Spec) (*Restored, error) {
	cfg := new(configs.Config)
	if err := json.Unmarshal(dumped, cfg); err != nil {
		return nil, fmt.Errorf("runtime description in the image: %w", err)
	}
	cfg.Rootfs = s.Rootfs
	if (len(cfg.UIDMappings) > 0) != (s.IDs != nil) {
		return nil, errors.New("the image and the container differ in their use of a user namespace")
	}
	if s.IDs != nil {
		m := []configs.IDMap{{ContainerID: 0, HostID: int64(s.IDs.Base), Size: int64(s.IDs.Size)}}
		cfg.UIDMappings, cfg.GIDMappings = m, m
	}
	wanted, err := s.config()
	if err != nil {
		return nil, err
	}
	allowed := external(wanted, os.Getpid()).Restore
	for _, e := range external(cfg, os.Getpid()).Restore {
		if !slices.Contains(allowed, e) {
			return nil, fmt.Errorf("%w: mount from outside %s", ErrExcess, e)
		}
	}
	// Of the image's own description only what the processes were made in counts:
	// namespaces, mounts, devices.
	cfg.Cgroups, cfg.Seccomp, cfg.NoNewPrivileges, cfg.Hooks = wanted.Cgroups, wanted.Seccomp, wanted.NoNewPrivileges, wanted.Hooks
	r := &Restored{stateDir: s.StateDir, id: s.ID, spec: s, cfg: cfg}
	if r.cgroup, err = manager.New(cfg.Cgroups); err != nil {
		return nil, fmt.Errorf("cgroups: %w", err)
	}
	r.entry = r.cgroup
	if r.Delegates() {
		if err := r.divide(r.cgroup.GetPaths()); err != nil {
			return nil, fmt.Errorf("cgroups: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.StateDir, s.ID), 0o711); err != nil {
		return nil, err
	}
	return r, nil
}

// Delegates says whether the container's init has a cgroup of its own in cgroup2,
// below the container's.
func (r *Restored) Delegates() bool { return delegated(r.cfg) }

// divide keeps CRIU out of the cgroup that the container divides: processes there
// keep controllers from being passed on.
func (r *Restored) divide(paths map[string]string) (err error) {
	if r.cgroup, err = manager.NewWithPaths(r.cfg.Cgroups, leafPaths(paths)); err != nil {
		return err
	}
	paths[""] = filepath.Join(paths[""], quota.Restorer)
	r.entry, err = manager.NewWithPaths(r.cfg.Cgroups, paths)
	return err
}

// Place puts CRIU's process into the container's cgroups, so that everything it
// restores is born inside them, and says which devices may be used there. Limits
// are the caller's to set.
func (r *Restored) Place(pid int) error {
	if err := r.entry.Apply(pid); err != nil {
		return fmt.Errorf("enter the container's cgroups: %w", err)
	}
	if err := r.cgroup.Set(r.cfg.Cgroups.Resources); err != nil {
		return fmt.Errorf("restrict the devices: %w", err)
	}
	return nil
}

// External names the mounts that come from outside.
func (r *Restored) External() []string { return external(r.cfg, os.Getpid()).Restore }

// Save writes the state file that Load reads. To be called while the restored
// tasks are still stopped.
func (r *Restored) Save(pid int) error {
	stat, err := system.Stat(pid)
	if err != nil {
		return fmt.Errorf("read the restored init: %w", err)
	}
	st := libcontainer.State{
		BaseState: libcontainer.BaseState{
			ID: r.id, InitProcessPid: pid, InitProcessStartTime: stat.StartTime, Created: time.Now().UTC(), Config: *r.cfg,
		},
		CgroupPaths:         r.cgroup.GetPaths(),
		NamespacePaths:      map[configs.NamespaceType]string{},
		ExternalDescriptors: []string{"/dev/null", "/dev/null", "/dev/null"},
	}
	for _, t := range configs.NamespaceTypes() {
		if configs.IsNamespaceSupported(t) {
			ns := configs.Namespace{Type: t}
			st.NamespacePaths[t] = ns.GetPath(pid)
		}
	}
	// libcontainer orders the namespaces to join by the configuration.
	if !r.cfg.Namespaces.Contains(configs.NEWTIME) {
		st.Config.Namespaces = append(st.Config.Namespaces, configs.Namespace{Type: configs.NEWTIME})
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	path := filepath.Join(r.stateDir, r.id, "state.json")
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// PID is the restored init's, after Save.
func (r *Restored) PID() (int, error) {
	c, err := Load(r.stateDir, r.id)
	if err != nil {
		return 0, err
	}
	return c.PID()
}

// Undo removes the state directory of a restore that failed.
func (r *Restored) Undo() error { return Forget(r.stateDir, r.id) }
