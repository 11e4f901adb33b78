package runc

import (
	"fmt"
	"slices"
	"syscall"

	"github.com/moby/profiles/seccomp"
	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// commandCaps is Docker's default set.
var commandCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// systemCaps is what a distribution's init and services may use: everything in
// the namespace but the capabilities that reach the machine itself (modules, raw
// I/O, clock, LSM, suspend) or that make a process CRIU cannot dump (BPF, PERFMON).
var systemCaps = append([]string{
	"CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_TTY_CONFIG", "CAP_LEASE",
	"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ",
}, commandCaps...)

// capabilities: without a user namespace of its own a distribution's init would be
// root on the host with the larger set, so it gets the small one.
func (s Spec) capabilities() []string {
	if s.System && s.IDs != nil {
		return systemCaps
	}
	return commandCaps
}

// nestedNamespaces are the kinds CRIU can't dump when a container makes more of
// its own; only mount namespaces stay allowed. (Of network namespaces it dumps
// one, when it is told to leave that to its caller.)
const nestedNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWUSER |
	unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// refused are system calls whose kernel objects CRIU can't dump or that reach
// the kernel itself. The errno is what programs take as "not supported here".
var refused = map[string]syscall.Errno{
	"io_uring_setup": unix.ENOSYS, "io_uring_enter": unix.ENOSYS, "io_uring_register": unix.ENOSYS,
	"keyctl": unix.ENOSYS, "add_key": unix.ENOSYS, "request_key": unix.ENOSYS,
	"clone3": unix.ENOSYS, "memfd_secret": unix.ENOSYS,
	"bpf": unix.EPERM, "perf_event_open": unix.EPERM, "fanotify_init": unix.EPERM, "userfaultfd": unix.EPERM,
	"open_by_handle_at": unix.EPERM, "init_module": unix.EPERM, "finit_module": unix.EPERM, "delete_module": unix.EPERM,
	// Sockets of 32-bit programs: behind it no rule can look at the family.
	"socketcall": unix.ENOSYS,
	"kexec_load": unix.EPERM, "kexec_file_load": unix.EPERM,
}

// addSeccomp sets the default profile (Docker's) less what can't be checkpointed.
func addSeccomp(spec *specs.Spec, system bool) error {
	if !lcseccomp.Enabled {
		return ErrNoSeccomp
	}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	own := []string{}
	for name := range refused {
		own = append(own, name)
	}
	if system {
		own = append(own, "clone", "unshare")
	}
	profile.Syscalls = withoutCalls(profile.Syscalls, own)
	for name, errno := range refused {
		ret := uint(errno)
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, ErrnoRet: &ret})
	}
	if system {
		profile.Syscalls = append(profile.Syscalls, specs.LinuxSyscall{
			Names: []string{"clone", "unshare"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: nestedNamespaces, ValueTwo: 0, Op: specs.OpMaskedEqual}},
		})
	}
	spec.Linux.Seccomp = profile
	return nil
}

func withoutCalls(rules []specs.LinuxSyscall, names []string) []specs.LinuxSyscall {
	var out []specs.LinuxSyscall
	for _, r := range rules {
		r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(n string) bool { return slices.Contains(names, n) })
		if len(r.Names) > 0 {
			out = append(out, r)
		}
	}
	return out
}
