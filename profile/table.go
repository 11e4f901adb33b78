package profile

import "slices"

// Entries is the table, in the order in which it is shown.
func Entries() []Entry {
	return slices.Concat(environment(), mounts(), cgroupAndNamespaces(), dropIns(), masks(), calls(), flags(), pidfds(), dropped())
}

// Versions of systemd that brought something that matters here.
const (
	memoryPressure = 254 // MemoryPressureWatch=
	pidfdIdentity  = 257 // processes are told apart by the inode of their pidfd
	privatePIDs    = 257 // PrivatePIDs=
	disconnected   = 257 // PrivateTmp=disconnected, which DynamicUser= implies
)

func environment() []Entry {
	return []Entry{
		{
			Name: "env-container", Kind: Environment, Inits: everything, Always: true, Env: []string{"container=ctctl"},
			Reason: "inits and their scripts take the container for a machine: they look for disks, load modules, set the clock",
			Limit:  "the only sign of a container that systemd and Debian's init scripts look for first",
		},
		{
			Name: "env-memory-pressure", Kind: Environment, Inits: []Init{Systemd}, Since: memoryPressure,
			Env:    []string{"MEMORY_PRESSURE_WATCH=/dev/null"},
			Reason: "after a restore systemd spins at full speed and its jobs hang",
			Limit:  "a PSI trigger is a state of an open memory.pressure that CRIU can't see: the file is opened again without, and poll always answers",
		},
	}
}

func mounts() []Entry {
	return []Entry{
		{
			Name: "mount-run", Kind: Mounted, Inits: inits, Always: true,
			Mounts: []Mount{{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=755"}}},
			Reason: "init mounts it itself, over what it has open there by then; and there is no place for the files in /run",
			Limit:  "CRIU saves no file that a mount hides",
		},
		{
			Name: "mount-cgroup2", Kind: Mounted, Inits: []Init{Systemd}, Always: true,
			Mounts: []Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup2", Source: "cgroup2", Options: []string{"nosuid", "noexec", "nodev"}}},
			Reason: "systemd does not boot: it can't make cgroups for its units",
			Limit:  "systemd needs a cgroup tree that it may write to; version 1 can't be delegated to a user namespace",
		},
	}
}

func cgroupAndNamespaces() []Entry {
	return []Entry{
		{
			Name: "cgroup-delegated", Kind: Cgroup, Inits: []Init{Systemd}, Always: true, Delegate: true,
			Reason: "systemd does not boot: \"Failed to create /init.scope control group: Permission denied\"",
			Limit:  "cgroups(7), delegation: the directory and three of its files have to be the user namespace's root's; limits stay above, out of its reach",
		},
		{
			Name: "namespaces-from-birth", Kind: Namespace, Inits: everything, Always: true,
			Namespaces: []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "uts"},
			Reason:     "commands can't enter a restored container; addresses and firewall of the host are in the image",
			Limit:      "CRIU restores into a time namespace, which only processes of one can join, and dumps all tasks with one net, ipc, pid, uts, time and user namespace",
		},
	}
}

const dropIn = "10-ctctl-checkpoint.conf"

// service is a setting of all services.
func service(name, setting string) []File {
	return []File{{Path: "systemd/system/service.d/10-ctctl-" + name + ".conf", Text: "[Service]\n" + setting + "\n"}}
}

func dropIns() []Entry {
	nested := "CRIU dumps one %s namespace: a second one inside fails the dump"
	return []Entry{
		{
			Name: "no-private-users", Kind: Injected, Inits: []Init{Systemd}, Files: service("private-users", "PrivateUsers=no"),
			Reason: "units with PrivateUsers=yes do not start, as user namespaces are refused (see flags-namespaces); systemd gives no way round",
			Limit:  limit(nested, "user"),
		},
		{
			Name: "no-protect-hostname", Kind: Injected, Inits: []Init{Systemd}, Files: service("protect-hostname", "ProtectHostname=no"),
			Reason: "units with ProtectHostname=yes (systemd-logind, many of Debian's services) ask for a UTS namespace of their own, and log that they did not get it",
			Limit:  limit(nested, "uts"),
		},
		{
			Name: "no-private-ipc", Kind: Injected, Inits: []Init{Systemd}, Files: service("private-ipc", "PrivateIPC=no"),
			Reason: "units with PrivateIPC=yes ask for an IPC namespace of their own, and log that they did not get it",
			Limit:  limit(nested, "ipc"),
		},
		{
			Name: "no-private-network", Kind: Injected, Inits: []Init{Systemd}, Files: service("private-network", "PrivateNetwork=no"),
			Reason: "units with PrivateNetwork=yes ask for a network namespace of their own, and log that they did not get it. Without flags-namespaces the dump fails. They see the container's network",
			Limit:  "the network namespace is the container's and left out of the image (empty_ns): \"Unable to dump more than one netns if the --emptyns is set\"",
		},
		{
			Name: "no-private-pids", Kind: Injected, Inits: []Init{Systemd}, Since: privatePIDs, Files: service("private-pids", "PrivatePIDs=no"),
			Reason: "units with PrivatePIDs=yes do not start, as pid namespaces are refused",
			Limit:  limit(nested, "pid"),
		},
		{
			Name: "no-memory-pressure-watch", Kind: Injected, Inits: []Init{Systemd}, Since: memoryPressure,
			Files: append(service("memory-pressure", "MemoryPressureWatch=no"),
				File{Path: "systemd/system.conf.d/" + dropIn, Text: "[Manager]\nDefaultMemoryPressureWatch=no\n"},
				File{Path: "systemd/user.conf.d/" + dropIn, Text: "[Manager]\nDefaultMemoryPressureWatch=no\n"}),
			Reason: "restore fails at the mounts of services with a mount namespace; services that watch memory pressure spin afterwards",
			Limit:  "systemd binds memory.pressure into them, and CRIU can't restore a bind mount of a file in cgroup2; a PSI trigger is lost (see env-memory-pressure)",
		},
		{
			Name: "connected-tmp", Kind: Injected, Inits: []Init{Systemd}, Since: disconnected,
			Files:  []File{{Path: "systemd/system-generators/ctctl-checkpoint", Text: connectTmp, Program: true}},
			Reason: "the dump fails while a unit with DynamicUser=yes and no PrivateTmp= of its own runs. With it these have PrivateTmp=yes, as with older versions",
			Limit:  "its /tmp is a directory of a tmpfs whose root nobody sees any more: \"doesn't have a proper root mount\". No setting for all services cures it",
		},
	}
}

// connectTmp is a generator, systemd.generator(7): at the boot and whenever units are
// read again it writes drop-ins for those that need one.
const connectTmp = `#!/bin/sh
# Gives units with DynamicUser=yes a /tmp that can be checkpointed.
cd /usr/lib/systemd/system || exit 0
grep -lsE '^[[:space:]]*DynamicUser[[:space:]]*=[[:space:]]*([Yy]|[Tt]|[Oo][Nn]|1)' \
	*.service /etc/systemd/system/*.service /usr/local/lib/systemd/system/*.service /run/systemd/system/*.service |
while read -r unit; do
	grep -qE '^[[:space:]]*PrivateTmp[[:space:]]*=' "$unit" && continue
	mkdir -p "$1/${unit##*/}.d"
	printf '[Service]\nPrivateTmp=yes\n' >"$1/${unit##*/}.d/10-ctctl-private-tmp.conf"
done
exit 0
`

// mask is the entry that keeps systemd from starting units.
func mask(name, reason, why string, units ...string) Entry {
	e := Entry{Name: name, Kind: Masked, Inits: []Init{Systemd}, Reason: reason, Limit: why}
	for _, u := range units {
		e.Files = append(e.Files, File{Path: "systemd/system/" + u, Link: "/dev/null"})
	}
	return e
}

func masks() []Entry {
	kernel := mask("mask-kernel", "the kernel's own file systems are mounted in the container. A precaution: the conditions of today's units keep systemd from it as well",
		"CRIU does not know hugetlbfs, and can't dump an autofs whose daemon is systemd; what the others show is another kernel's after a move",
		"dev-hugepages.mount", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "sys-fs-fuse-connections.mount",
		"sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount")
	tmp := mask("mask-tmp", "the boot ends degraded: both units fail. With it /tmp is on the root's disk and /run/lock in /run",
		"without a user namespace init has no CAP_SYS_ADMIN, and can't mount", "run-lock.mount", "tmp.mount")
	tmp.Always, tmp.HostUsers = true, true
	return []Entry{kernel, tmp}
}

// dropped are not given to an init; a command's set is smaller anyway.
func dropped() []Entry {
	return []Entry{
		{
			Name: "caps-machine", Kind: Capability, Inits: inits, Always: true,
			Capabilities: []string{
				"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_SYSLOG",
				"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
			},
			Reason: "they reach the machine itself: modules, ports, clock, LSM, kernel log, suspend; an init that has them tries to use them",
			Limit:  "none of the container's to give away",
		},
		{
			Name: "caps-objects", Kind: Capability, Inits: inits, Always: true, Capabilities: []string{"CAP_BPF", "CAP_PERFMON"},
			Reason: "programs make kernel objects that fail the dump", Limit: "CRIU knows no descriptors of bpf programs, maps and perf events",
		},
		{
			Name: "caps-limits", Kind: Capability, Inits: inits, Always: true,
			Capabilities: []string{"CAP_SYS_RESOURCE", "CAP_CHECKPOINT_RESTORE"},
			Reason:       "limits are raised inside beyond what can be given back at a restore on a host without the capability",
			Limit:        "restoring a higher hard limit needs CAP_SYS_RESOURCE in the host's user namespace",
		},
	}
}
