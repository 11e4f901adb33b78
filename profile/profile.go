package profile

import (
	"fmt"
	"slices"
	"syscall"
)

// Init is a kind of process 1.
type Init string

// The kinds that the table tells apart. Other is an init that is none of them.
const (
	Systemd Init = "systemd"
	SysV    Init = "sysvinit"
	OpenRC  Init = "openrc"
	Busybox Init = "busybox"
	Other   Init = "other"
	Command Init = "command" // no init: one program
)

// inits are those that boot a system.
var inits = []Init{Systemd, SysV, OpenRC, Busybox, Other}

// everything is what any container runs.
var everything = append(slices.Clone(inits), Command)

// Found is what Detect has found out.
type Found struct {
	Init Init `json:"init"`
	// Version is systemd's major one, 0 when it could not be told: then it is taken
	// to be newer than all that is known.
	Version int `json:"version,omitempty"`
}

// String is like "systemd 257".
func (f Found) String() string {
	if f.Version == 0 {
		return string(f.Init)
	}
	return fmt.Sprintf("%s %d", f.Init, f.Version)
}

// Kind sorts entries.
type Kind string

// The kinds of entries.
const (
	Environment Kind = "environment"
	Mounted     Kind = "mount"
	Injected    Kind = "file in /run"
	Masked      Kind = "mask"
	Syscall     Kind = "system call"
	Capability  Kind = "capability"
	Cgroup      Kind = "cgroup"
	Namespace   Kind = "namespace"
)

// Entry is one measure. Of the fields after Always it has those of its kind.
type Entry struct {
	Name   string
	Kind   Kind
	Inits  []Init // which it is for
	Since  int    // systemd's version, from which on; 0: from the first
	Until  int    // and up to which, itself included; 0: to the last
	Reason string // what happens without it
	Limit  string // of CRIU, the kernel or the init, that is behind it
	// Always: it is also there when the container need not be checkpointable, for
	// then the init would not boot, or the host be less safe.
	Always bool
	// HostUsers: only for containers without a user namespace of their own.
	HostUsers bool

	Env          []string // of init, KEY=VALUE
	Mounts       []Mount
	Files        []File
	Rules        []Rule
	Capabilities []string // that the container does not have
	Delegate     bool
	Namespaces   []string // that the container has from birth
}

// Mount is what is mounted in the container at its birth, instead of what else
// would be mounted there.
type Mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options,omitempty"`
}

// File is put below /run before init runs: a regular file with Text, or a symbolic
// link to Link.
type File struct {
	Path    string `json:"path"` // relative to /run
	Text    string `json:"text,omitempty"`
	Link    string `json:"link,omitempty"`
	Program bool   `json:"program,omitempty"` // may be executed
}

// Rule refuses a system call with an errno: always, or when all of Args are so.
type Rule struct {
	Call  string        `json:"call"`
	Errno syscall.Errno `json:"errno"`
	Args  []Arg         `json:"args,omitempty"`
}

// Arg looks at one argument of a system call.
type Arg struct {
	Index uint   `json:"index"`
	Value uint64 `json:"value"`
	// AnyBit: the argument has at least one of Value's bits; else it equals Value.
	AnyBit bool `json:"anyBit,omitempty"`
}

// Leaf is the name of the cgroup below a container's own that is its init's to
// run, where the profile delegates one.
const Leaf = "init"

// Profile is what holds for one container: plain data, which crosses to the process
// that makes it. The zero Profile is no profile.
type Profile struct {
	Found
	Checkpointable bool     `json:"checkpointable"`
	Entries        []string `json:"entries"` // by name
	Env            []string `json:"env,omitempty"`
	Mounts         []Mount  `json:"mounts,omitempty"`
	Files          []File   `json:"files,omitempty"`
	Rules          []Rule   `json:"rules,omitempty"`
	// Allow are system calls that would be refused by an entry that was left out by
	// name, so that they are allowed whoever else refuses them.
	Allow []string `json:"allow,omitempty"`
	// Delegate: in cgroup2 init has the cgroup Leaf below the container's, owned by
	// the container's root, and makes its own ones in there.
	Delegate bool `json:"delegate,omitempty"`
}

// Options say which entries a profile is to have.
type Options struct {
	// Off leaves out what is there for checkpoints only.
	Off bool
	// Without are names of entries to leave out, see CheckWithout.
	Without []string
	// HostUsers: the container has no user namespace of its own.
	HostUsers bool
}

// For is the profile of what was found.
func For(f Found, o Options) Profile {
	p := Profile{Found: f, Checkpointable: !o.Off}
	for _, e := range Entries() {
		if !e.For(f) || e.HostUsers && !o.HostUsers {
			continue
		}
		if !e.Always && slices.Contains(o.Without, e.Name) {
			p.Allow = append(p.Allow, callsOf(e.Rules)...)
			continue
		}
		if !e.Always && o.Off {
			continue
		}
		p.Entries = append(p.Entries, e.Name)
		p.Env = append(p.Env, e.Env...)
		p.Mounts = append(p.Mounts, e.Mounts...)
		p.Files = append(p.Files, e.Files...)
		p.Rules = append(p.Rules, e.Rules...)
		p.Delegate = p.Delegate || e.Delegate
	}
	return p
}

func callsOf(rules []Rule) (calls []string) {
	for _, r := range rules {
		calls = append(calls, r.Call)
	}
	return calls
}

// For says whether the entry is for that init.
func (e Entry) For(f Found) bool {
	if !slices.Contains(e.Inits, f.Init) {
		return false
	}
	if f.Version == 0 {
		return e.Until == 0
	}
	return f.Version >= e.Since && (e.Until == 0 || f.Version <= e.Until)
}

// CheckWithout answers ErrEntry when names has one that is no entry, or one that
// can't be left out.
func CheckWithout(names []string) error {
	all := Entries()
	for _, n := range names {
		i := slices.IndexFunc(all, func(e Entry) bool { return e.Name == n })
		switch {
		case i < 0:
			return fmt.Errorf("%w: %q", ErrEntry, n)
		case all[i].Always:
			return fmt.Errorf("%w: %q is always there", ErrEntry, n)
		}
	}
	return nil
}
