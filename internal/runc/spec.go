package runc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ctctl/ctctl/profile"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// IDRange maps ids 0…Size-1 inside the container to Base…Base+Size-1 outside.
type IDRange struct {
	Base uint32 `json:"base"`
	Size uint32 `json:"size"`
}

// Spec is all that libcontainer needs to know of a container.
type Spec struct {
	ID       string   // unique below StateDir
	StateDir string   // libcontainer's state root; directories on the way need search permission for everybody
	Rootfs   string   // a mount point, id-mapped to IDs when IDs is set
	Hostname string   // of the UTS namespace
	Cgroup   string   // "/ctctl-…", created in every hierarchy
	IDs      *IDRange // nil: the host's user namespace

	// System is for a whole distribution: the full capability set of the
	// namespace less a few, new privileges allowed. Without it the container
	// runs one command with a small set.
	System bool
	Args   []string
	Env    []string
	Cwd    string
	// Profile is what makes the container one that can be checkpointed; the zero
	// one stands for that of an init that is not known, or of a command.
	Profile profile.Profile
}

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func (s Spec) config() (*configs.Config, error) {
	oci := s.oci()
	if err := addSeccomp(oci, s.profile()); err != nil {
		return nil, err
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: s.ID, Spec: oci})
	if err != nil {
		return nil, fmt.Errorf("container configuration: %w", err)
	}
	cfg.Labels = append(cfg.Labels, s.labels()...)
	return cfg, nil
}

func (s Spec) profile() profile.Profile {
	switch {
	case s.Profile.Init != "":
		return s.Profile
	case s.System:
		return profile.For(profile.Found{Init: profile.Other}, profile.Options{})
	}
	return profile.For(profile.Found{Init: profile.Command}, profile.Options{})
}

func (s Spec) oci() *specs.Spec {
	caps := s.capabilities()
	spec := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: s.Rootfs},
		Hostname: s.Hostname,
		Process: &specs.Process{
			Args: s.Args, Env: s.environment(), Cwd: s.cwd(), Terminal: true,
			NoNewPrivileges: !s.System,
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: s.mounts(),
		Linux: &specs.Linux{
			CgroupsPath:       s.Cgroup,
			RootfsPropagation: "private",
			Namespaces:        s.namespaces(),
			MaskedPaths:       maskedPaths(),
			ReadonlyPaths:     []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/proc/sys"},
			Resources:         resources(),
		},
	}
	if s.IDs != nil {
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.IDs.Base, Size: s.IDs.Size}}
		spec.Linux.UIDMappings, spec.Linux.GIDMappings = m, m
	}
	return spec
}

func (s Spec) environment() []string {
	env := append([]string{defaultPath, "HOME=/root", "TERM=linux"}, s.profile().Env...)
	return append(env, s.Env...)
}

func (s Spec) cwd() string {
	if s.Cwd == "" {
		return "/"
	}
	return s.Cwd
}

// namespaces: the network namespace has no path, so it belongs to the
// container's user namespace and dies with the container. The time namespace is
// there from birth, because CRIU restores into one and a later command has to
// join the same kind.
func (s Spec) namespaces() []specs.LinuxNamespace {
	kinds := []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace,
		specs.UTSNamespace, specs.MountNamespace, specs.CgroupNamespace, specs.TimeNamespace,
	}
	if s.IDs != nil {
		kinds = append(kinds, specs.UserNamespace)
	}
	var out []specs.LinuxNamespace
	for _, k := range kinds {
		out = append(out, specs.LinuxNamespace{Type: k})
	}
	return out
}

// mounts keeps the number of tmpfs mounts small: CRIU starts a tar for each
// while the container is frozen.
func (s Spec) mounts() []specs.Mount {
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		// So that a Java or Go runtime sees its limits; read-only, as limits are set from outside.
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
	for _, m := range s.profile().Mounts {
		all = slices.DeleteFunc(all, func(o specs.Mount) bool { return o.Destination == m.Destination })
		all = append(all, specs.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	return all
}

// maskedPaths are hidden as runc hides them: what tells of the host or can be
// used against it.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

// resources are the devices alone: libcontainer makes and removes the cgroup, and
// what it limits is quota's to say.
func resources() *specs.LinuxResources {
	return &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
}

// External lists the mounts whose source lies outside the container, as CRIU
// wants them named: at the dump `mnt[WHERE]:KEY`, at the restore `mnt[KEY]:SOURCE`.
type External struct {
	Dump    []string `json:"dump"`
	Restore []string `json:"restore"`
}

// external finds them: inside a user namespace device nodes can't be made, so
// libcontainer binds the host's; and masked files are covered by /dev/null.
func external(cfg *configs.Config, pid int) External {
	var e External
	for _, m := range cfg.Mounts {
		if m.Device == "bind" {
			e.Dump = append(e.Dump, fmt.Sprintf("mnt[%s]:%s", m.Destination, m.Destination))
			e.Restore = append(e.Restore, fmt.Sprintf("mnt[%s]:%s", m.Destination, m.Source))
		}
	}
	if len(cfg.UIDMappings) > 0 {
		for _, d := range cfg.Devices {
			if d.Path == "" || d.Path == "/dev/ptmx" {
				continue
			}
			e.Dump = append(e.Dump, fmt.Sprintf("mnt[%s]:%s", d.Path, d.Path))
			e.Restore = append(e.Restore, fmt.Sprintf("mnt[%s]:%s", d.Path, d.Path))
		}
	}
	for _, p := range cfg.MaskPaths {
		// Masked paths are kernel files, the same in every proc and sysfs.
		if fi, err := os.Stat(filepath.Join(fmt.Sprintf("/proc/%d/root", pid), p)); err == nil && !fi.IsDir() {
			e.Dump = append(e.Dump, fmt.Sprintf("mnt[%s]:/dev/null", p))
		}
	}
	e.Restore = append(e.Restore, "mnt[/dev/null]:/dev/null")
	return e
}
