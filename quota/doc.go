// Package quota limits what a group of processes may use, says what it uses,
// freezes it and ends it. It knows cgroups and processes, not containers.
//
// A Group is one name, "/ctctl-…", in every cgroup hierarchy of the host. The
// three layouts that exist are served alike:
//
//	v1      one hierarchy per controller, no cgroup2 mount
//	hybrid  controllers in v1 hierarchies, and cgroup2 beside them
//	        (systemd mounts it on /sys/fs/cgroup/unified)
//	v2      cgroup2 alone on /sys/fs/cgroup
//
// For each controller the v1 hierarchy is used when there is one, because the
// kernel binds a controller to one hierarchy only; otherwise cgroup2. What is
// core in cgroup2 and needs no controller (cgroup.freeze since Linux 5.2,
// cgroup.kill since 5.14, the tree of sub-cgroups, cpu.stat) is used on the
// hybrid layout too, whose cgroup2 mount often has no controller at all.
//
// Everything here is plain reading and writing of cgroup files. The packages
// cgroup1 and cgroup2 of containerd/cgroups are not used: each of them serves
// one layout, a group of the hybrid layout would need both at once; their
// freezers cannot be bounded by a context, poll in steps of 1 ms and up, and
// look at nothing but the state file; their updates do not roll back.
//
// Memory, processes and cpu time are enforced by cgroups. The disk limit is
// part of Limits, so that it is parsed and stored in one place, and is
// enforced by the storage drivers.
package quota
