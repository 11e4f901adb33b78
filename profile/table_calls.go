package profile

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// limit fills in a limit that several entries share.
func limit(format, what string) string { return fmt.Sprintf(format, what) }

// refuse is the entry for system calls that are refused whatever their arguments.
func refuse(name string, always bool, errno syscall.Errno, reason, why string, names ...string) Entry {
	e := Entry{Name: name, Kind: Syscall, Inits: everything, Always: always, Reason: reason, Limit: why}
	for _, n := range names {
		e.Rules = append(e.Rules, Rule{Call: n, Errno: errno})
	}
	return e
}

// calls are refused: the errno is what programs take as "not supported here".
func calls() []Entry {
	return []Entry{
		refuse("no-io-uring", false, unix.ENOSYS, "the dump fails as soon as a program has a ring; with ENOSYS they use epoll",
			"CRIU does not know the descriptor of io_uring", "io_uring_setup", "io_uring_enter", "io_uring_register"),
		refuse("no-bpf", false, unix.EPERM, "the dump fails at once: systemd keeps bpf programs for its units' device and address rules",
			"CRIU does not know descriptors of bpf programs and links", "bpf"),
		refuse("no-perf", false, unix.EPERM, "the dump fails while a program has an event open", "CRIU does not know descriptors of perf events", "perf_event_open"),
		refuse("no-fanotify", false, unix.EPERM, "the restore fails or hangs where a program watches a whole file system",
			"marks on mounts can't be set by a user namespace's root, as whom CRIU restores them", "fanotify_init"),
		refuse("no-userfaultfd", false, unix.EPERM, "the dump fails while a program has one", "CRIU does not know the descriptor of userfaultfd", "userfaultfd"),
		refuse("no-memfd-secret", false, unix.ENOSYS, "the dump fails at the mapping", "nobody but its owner, and so no CRIU, can read that memory", "memfd_secret"),
		refuse("no-keyring", false, unix.ENOSYS, "keys are lost with a restore, and a service that counts on them fails later",
			"kernel keyrings are in no image", "keyctl", "add_key", "request_key"),
		refuse("no-clone3", false, unix.ENOSYS, "the rules for clone's flags can be got round; with ENOSYS libc uses clone",
			"its flags are in memory, where seccomp can't look", "clone3"),
		refuse("no-handles", true, unix.EPERM, "files of the host can be opened by number", "handles are not confined by mounts", "open_by_handle_at"),
		refuse("no-kernel", true, unix.EPERM, "the kernel itself can be replaced or added to", "none of the container's",
			"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
		refuse("no-socketcall", true, unix.ENOSYS, "32-bit programs make sockets that the other rules refuse", "behind it no rule can see the family", "socketcall"),
	}
}

// Nested are the namespaces CRIU can't dump when a container makes more of its own;
// mount namespaces stay allowed.
const nested = unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWUSER |
	unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

func flags() []Entry {
	refused := []Arg{{Index: 0, Value: nested, AnyBit: true}}
	return []Entry{{
		Name: "flags-namespaces", Kind: Syscall, Inits: inits,
		Rules: []Rule{
			{Call: "unshare", Errno: unix.EPERM, Args: refused},
			// CLONE_NEWTIME is not a flag of clone(2): there its bits are the signal's.
			{Call: "clone", Errno: unix.EPERM, Args: []Arg{{Index: 0, Value: nested &^ unix.CLONE_NEWTIME, AnyBit: true}}},
		},
		Reason: "the dump fails while a process is in a namespace of its own. Services that ask for one get it refused, and most go on without",
		Limit:  "CRIU dumps nested mount namespaces, and no nested user, pid, uts, ipc, time and cgroup ones; of network namespaces none beside the container's",
	}}
}

// Not in x/sys for every architecture; the same on all but parisc and sparc.
const (
	soPassPIDFD = 76
	soPeerPIDFD = 77
	pPIDFD      = 3 // idtype of waitid(2)
)

func pidfds() []Entry {
	option := func(call string, number uint64) Rule {
		return Rule{Call: call, Errno: unix.ENOPROTOOPT, Args: []Arg{{Index: 1, Value: unix.SOL_SOCKET}, {Index: 2, Value: number}}}
	}
	return []Entry{{
		Name: "no-pidfds", Kind: Syscall, Inits: []Init{Systemd}, Since: pidfdIdentity,
		Rules: []Rule{
			{Call: "pidfd_open", Errno: unix.ENOSYS},
			{Call: "waitid", Errno: unix.EINVAL, Args: []Arg{{Index: 0, Value: pPIDFD}}},
			{Call: "clone", Errno: unix.EINVAL, Args: []Arg{{Index: 0, Value: unix.CLONE_PIDFD, AnyBit: true}}},
			option("setsockopt", soPassPIDFD),
			option("getsockopt", soPeerPIDFD),
		},
		Reason: "after a restore systemd drops every notification of its services, and three minutes later the watchdog kills journald and logind",
		Limit:  "systemd knows a process by the inode of its pidfd, which it keeps from the fork; a restored process has another one",
	}}
}
