package runc

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ctctl/ctctl/profile"
	"github.com/moby/profiles/seccomp"
	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
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

// addSeccomp sets the default profile (Docker's), less what the container's refuses
// and with what it allows.
func addSeccomp(spec *specs.Spec, p profile.Profile) error {
	if !lcseccomp.Enabled {
		return ErrNoSeccomp
	}
	base, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	byCall := map[string][]profile.Rule{}
	for _, r := range p.Rules {
		byCall[r.Call] = append(byCall[r.Call], r)
	}
	for _, call := range p.Allow {
		if byCall[call] == nil { // else another entry has a say in it
			base.Syscalls = append(withoutCalls(base.Syscalls, []string{call}), allow(call))
		}
	}
	calls := slices.Sorted(maps.Keys(byCall))
	base.Syscalls = withoutCalls(base.Syscalls, calls)
	for _, call := range calls {
		more, err := refusals(call, byCall[call])
		if err != nil {
			return fmt.Errorf("seccomp profile: %w", err)
		}
		base.Syscalls = append(base.Syscalls, more...)
	}
	spec.Linux.Seccomp = base
	return nil
}

// refusals are the rules of one call: an errno where one of them holds, and where
// none does, which libseccomp wants to be said, that it is allowed.
func refusals(call string, rules []profile.Rule) (out []specs.LinuxSyscall, err error) {
	var bits uint64 // of argument 0
	for _, r := range rules {
		ret := uint(r.Errno)
		refuse := func(args ...specs.LinuxSeccompArg) {
			out = append(out, specs.LinuxSyscall{Names: []string{call}, Action: specs.ActErrno, ErrnoRet: &ret, Args: args})
		}
		switch {
		case len(r.Args) == 0 && len(rules) == 1:
			refuse()
			return out, nil
		case len(r.Args) == 1 && r.Args[0].AnyBit && r.Args[0].Index == 0:
			bits |= r.Args[0].Value
			for bit := uint64(1); bit != 0; bit <<= 1 {
				if r.Args[0].Value&bit != 0 {
					refuse(specs.LinuxSeccompArg{Value: bit, ValueTwo: bit, Op: specs.OpMaskedEqual})
				}
			}
		case len(rules) == 1 && !slices.ContainsFunc(r.Args, func(a profile.Arg) bool { return a.AnyBit }):
			refuse(equalArgs(r.Args)...)
			for i, a := range r.Args {
				differs := specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, Op: specs.OpNotEqual}
				out = append(out, allow(call, append(equalArgs(r.Args[:i]), differs)...))
			}
			return out, nil
		default:
			return nil, fmt.Errorf("rules for %s that can't be told apart: %+v", call, rules)
		}
	}
	return append(out, allow(call, specs.LinuxSeccompArg{Value: bits, ValueTwo: 0, Op: specs.OpMaskedEqual})), nil
}

func allow(call string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{call}, Action: specs.ActAllow, Args: args}
}

func equalArgs(args []profile.Arg) (out []specs.LinuxSeccompArg) {
	for _, a := range args {
		out = append(out, specs.LinuxSeccompArg{Index: a.Index, Value: a.Value, Op: specs.OpEqualTo})
	}
	return out
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
