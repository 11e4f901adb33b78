// Package quota limits what a group of processes may use, says what it uses and
// how often it met a limit, freezes it and ends it. It knows cgroups and processes, not containers.
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
// # Limits
//
// Limits mean the same with both versions of cgroups:
//
//	                cgroup2                    v1
//	CPUs            cpu.max                    cpu.cfs_quota_us
//	CPUWeight       cpu.weight                 cpu.shares, weight*1024/100
//	CPUSet          cpuset.cpus                cpuset.cpus, and mems where none are set
//	MemoryBytes     memory.max                 memory.limit_in_bytes
//	MemoryHighBytes memory.high                refused: there is nothing like it
//	MemoryMinBytes  memory.min                 refused: there is nothing like it
//	SwapBytes       memory.swap.max            memory.memsw.limit_in_bytes, the sum and a page
//	PIDs            pids.max                   pids.max
//	IOWeight        io.weight, io.bfq.weight   blkio.bfq.weight
//	IO              io.max                     blkio.throttle.*
//
// libcontainer makes and removes a container's cgroup and says which devices may
// be used; all limits are this package's. Apply looks at everything first, writes
// in an order that the kernel takes, looks again at what the kernel lets happen
// without complaint, and writes back what was there when something is refused.
// Effective says what Read will return, Compare what is not as it should be, and
// Notes what holds in part only on this host.
//
// A guarantee, MemoryMinBytes, reaches cgroups below the group that have the
// memory controller of their own only where cgroup2 is mounted with
// memory_recursiveprot, as systemd does.
//
// # Usage
//
// Usage is one reading: held, most held, limit and how often the limit was met, as
// OpenVZ's user_beancounters say it, with the kernel's pressure figures. Counters
// begin at 0 with every cgroup; a Tally adds them up over the lives of a container,
// from whatever readings there are. Nothing has to run for that.
//
// The disk limit is part of Limits, so that it is parsed and stored in one place,
// and is enforced by the storage drivers.
package quota
