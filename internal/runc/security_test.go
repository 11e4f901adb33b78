package runc

import (
	"slices"
	"syscall"
	"testing"

	"github.com/ctctl/ctctl/profile"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func errnoRule(errno syscall.Errno, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	ret := uint(errno)
	return specs.LinuxSyscall{Names: []string{"call"}, Action: specs.ActErrno, ErrnoRet: &ret, Args: args}
}

func TestRefusedCallsAreRefusedAndTheOthersAllowed(t *testing.T) {
	bit := func(b uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Value: b, ValueTwo: b, Op: specs.OpMaskedEqual}
	}
	equal := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: specs.OpEqualTo}
	}
	differs := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Value: v, Op: specs.OpNotEqual}
	}
	tests := map[string]struct {
		rules []profile.Rule
		want  []specs.LinuxSyscall
	}{
		"always": {
			[]profile.Rule{{Call: "call", Errno: unix.ENOSYS}},
			[]specs.LinuxSyscall{errnoRule(unix.ENOSYS)},
		},
		"with two arguments": {
			[]profile.Rule{{Call: "call", Errno: unix.EINVAL, Args: []profile.Arg{{Index: 1, Value: 1}, {Index: 2, Value: 76}}}},
			[]specs.LinuxSyscall{
				errnoRule(unix.EINVAL, equal(1, 1), equal(2, 76)),
				allow("call", differs(1, 1)), allow("call", equal(1, 1), differs(2, 76)),
			},
		},
		"with flags of two entries": {
			[]profile.Rule{
				{Call: "call", Errno: unix.EPERM, Args: []profile.Arg{{Value: 0x6, AnyBit: true}}},
				{Call: "call", Errno: unix.EINVAL, Args: []profile.Arg{{Value: 0x8, AnyBit: true}}},
			},
			[]specs.LinuxSyscall{
				errnoRule(unix.EPERM, bit(2)), errnoRule(unix.EPERM, bit(4)), errnoRule(unix.EINVAL, bit(8)),
				allow("call", specs.LinuxSeccompArg{Value: 0xe, Op: specs.OpMaskedEqual}),
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := refusals("call", tt.rules)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRulesThatCannotBeToldApartAreAnError(t *testing.T) {
	one := profile.Rule{Call: "call", Errno: unix.EPERM, Args: []profile.Arg{{Index: 0, Value: 1}}}
	other := profile.Rule{Call: "call", Errno: unix.EPERM, Args: []profile.Arg{{Index: 1, Value: 1, AnyBit: true}}}
	for _, rules := range [][]profile.Rule{{one, one}, {other}, {one, {Call: "call"}}} {
		if got, err := refusals("call", rules); err == nil {
			t.Errorf("%+v: %+v", rules, got)
		}
	}
}

func TestEveryProfileMakesAFilterThatRefusesItsCalls(t *testing.T) {
	if !SeccompBuiltIn() {
		t.Skip("built without the tag seccomp")
	}
	for _, f := range []profile.Found{
		{Init: profile.Systemd, Version: 252}, {Init: profile.Systemd, Version: 257}, {Init: profile.SysV}, {Init: profile.Command},
	} {
		p := profile.For(f, profile.Options{})
		s := Spec{ID: "x", Cgroup: "/ctctl-x", Rootfs: "/", System: f.Init != profile.Command, IDs: &IDRange{Base: 1 << 20, Size: 65536}, Profile: p}
		cfg, err := s.config()
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		for _, r := range p.Rules {
			found := false
			for _, c := range cfg.Seccomp.Syscalls {
				found = found || c.Name == r.Call && c.ErrnoRet != nil && *c.ErrnoRet == uint(r.Errno)
			}
			if !found {
				t.Errorf("%v: %s is not refused", f, r.Call)
			}
		}
	}
}

func TestCallsOfAnEntryThatIsLeftOutAreAllowed(t *testing.T) {
	if !SeccompBuiltIn() {
		t.Skip("built without the tag seccomp")
	}
	p := profile.For(profile.Found{Init: profile.Command}, profile.Options{Without: []string{"no-io-uring", "no-clone3"}})
	cfg, err := Spec{ID: "x", Cgroup: "/ctctl-x", Rootfs: "/", Profile: p}.config()
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []string{"io_uring_setup", "clone3"} {
		allowed := 0
		for _, c := range cfg.Seccomp.Syscalls {
			switch {
			case c.Name == call && c.Action == configs.Allow && len(c.Args) == 0:
				allowed++
			case c.Name == call:
				t.Errorf("%s: %+v", call, c)
			}
		}
		if allowed != 1 {
			t.Errorf("%s is allowed %d times", call, allowed)
		}
	}
}

func TestAnInitHasAllCapabilitiesButThoseTheTableDrops(t *testing.T) {
	var dropped []string
	for _, e := range profile.Entries() {
		dropped = append(dropped, e.Capabilities...)
	}
	all, err := mask(slices.Concat(systemCaps, dropped))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range capability.ListKnown() {
		if all&(1<<uint(c)) == 0 {
			t.Errorf("%v is neither given nor dropped", c)
		}
	}
	for _, c := range dropped {
		if slices.Contains(systemCaps, c) {
			t.Errorf("%s is given and dropped", c)
		}
	}
}

func TestTheProfileDecidesMountsEnvironmentAndLabels(t *testing.T) {
	ids := &IDRange{Base: 1 << 20, Size: 65536}
	systemd := Spec{System: true, IDs: ids, Profile: profile.For(profile.Found{Init: profile.Systemd, Version: 257}, profile.Options{})}
	types := map[string]string{}
	for _, m := range systemd.mounts() {
		if types[m.Destination] != "" {
			t.Errorf("%s is mounted twice", m.Destination)
		}
		types[m.Destination] = m.Type
	}
	if types["/sys/fs/cgroup"] != "cgroup2" || types["/run"] != "tmpfs" || types["/proc"] != "proc" {
		t.Errorf("mounts: %v", types)
	}
	if env := systemd.environment(); !slices.Contains(env, "MEMORY_PRESSURE_WATCH=/dev/null") || !slices.Contains(env, "container=ctctl") {
		t.Errorf("environment: %v", env)
	}
	if diff := cmp.Diff([]string{"ctctl.profile=systemd 257", "ctctl.delegate=init"}, systemd.labels()); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	command := Spec{IDs: ids} // with no profile: that of a command
	if got := command.labels(); !slices.Equal(got, []string{"ctctl.profile=command"}) {
		t.Errorf("labels: %v", got)
	}
	if len(command.profile().Rules) == 0 {
		t.Error("a container without a profile may call everything")
	}
}
