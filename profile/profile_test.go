package profile

import (
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryEntryHasANameAReasonALimitAndWhatItsKindNeeds(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, e := range Entries() {
		has := map[Kind]bool{
			Environment: len(e.Env) > 0, Mounted: len(e.Mounts) > 0, Injected: len(e.Files) > 0 && e.Kind != Masked,
			Masked: len(e.Files) > 0 && e.Kind == Masked, Syscall: len(e.Rules) > 0, Capability: len(e.Capabilities) > 0,
			Cgroup: e.Delegate, Namespace: len(e.Namespaces) > 0,
		}
		for kind, there := range has {
			if there != (kind == e.Kind) {
				t.Errorf("%s is a %s and has a %s: %v", e.Name, e.Kind, kind, there)
			}
		}
		switch {
		case !name.MatchString(e.Name) || seen[e.Name]:
			t.Errorf("%q is no name, or there twice", e.Name)
		case e.Reason == "" || e.Limit == "" || len(e.Inits) == 0:
			t.Errorf("%s lacks a reason, a limit or inits", e.Name)
		case e.Since > 0 && !slices.Equal(e.Inits, []Init{Systemd}), e.Until > 0 && e.Until < e.Since:
			t.Errorf("%s: versions %d to %d", e.Name, e.Since, e.Until)
		}
		seen[e.Name] = true
	}
}

func TestNoTwoEntriesWriteTheSameFileOrMountTheSamePlace(t *testing.T) {
	seen := map[string]string{}
	for _, e := range Entries() {
		var places []string
		for _, m := range e.Mounts {
			places = append(places, m.Destination)
		}
		for _, f := range e.Files {
			places = append(places, f.Path)
			if !filepath.IsLocal(f.Path) || (f.Text == "") == (f.Link == "") || f.Program && f.Link != "" {
				t.Errorf("%s: bad file %+v", e.Name, f)
			}
		}
		for _, p := range places {
			if seen[p] != "" {
				t.Errorf("%s is %s's and %s's", p, seen[p], e.Name)
			}
			seen[p] = e.Name
		}
	}
}

func TestEachInitGetsItsEntries(t *testing.T) {
	tests := map[string]struct {
		found     Found
		has       string // names of entries
		hasNot    string
		delegates bool
	}{
		"Debian 12":          {Found{Systemd, 252}, "cgroup-delegated mount-run no-private-users mask-kernel flags-namespaces no-bpf", "no-pidfds mask-tmp no-memory-pressure-watch env-memory-pressure connected-tmp no-private-pids", true},
		"between them":       {Found{Systemd, 255}, "env-memory-pressure no-memory-pressure-watch", "no-pidfds connected-tmp", true},
		"Debian 13":          {Found{Systemd, 257}, "no-pidfds connected-tmp env-memory-pressure no-private-pids", "", true},
		"an unknown systemd": {Found{Systemd, 0}, "no-pidfds connected-tmp", "", true},
		"sysvinit":           {Found{Init: SysV}, "env-container mount-run flags-namespaces no-io-uring caps-machine", "cgroup-delegated mount-cgroup2 no-private-users mask-kernel no-pidfds", false},
		"OpenRC":             {Found{Init: OpenRC}, "mount-run flags-namespaces", "cgroup-delegated", false},
		"busybox":            {Found{Init: Busybox}, "mount-run flags-namespaces", "cgroup-delegated", false},
		"a strange init":     {Found{Init: Other}, "mount-run flags-namespaces", "cgroup-delegated", false},
		"a command":          {Found{Init: Command}, "env-container no-io-uring no-clone3 namespaces-from-birth", "mount-run flags-namespaces caps-machine", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := For(tt.found, Options{})
			for _, n := range strings.Fields(tt.has) {
				if !slices.Contains(p.Entries, n) {
					t.Errorf("lacks %s", n)
				}
			}
			for _, n := range strings.Fields(tt.hasNot) {
				if slices.Contains(p.Entries, n) || !slices.ContainsFunc(Entries(), func(e Entry) bool { return e.Name == n }) {
					t.Errorf("has %s, or there is no such entry", n)
				}
			}
			if p.Delegate != tt.delegates || !p.Checkpointable {
				t.Errorf("delegates %v, checkpointable %v", p.Delegate, p.Checkpointable)
			}
		})
	}
}

func TestOffLeavesOnlyWhatIsAlwaysThere(t *testing.T) {
	p := For(Found{Systemd, 257}, Options{Off: true})
	if p.Checkpointable || !p.Delegate || len(p.Files) > 0 {
		t.Errorf("checkpointable %v, delegates %v, files %v", p.Checkpointable, p.Delegate, p.Files)
	}
	var want []string
	for _, e := range Entries() {
		if e.Always && !e.HostUsers && e.For(p.Found) {
			want = append(want, e.Name)
		}
	}
	if diff := cmp.Diff(want, p.Entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestWithoutAUserNamespaceNothingIsMounted(t *testing.T) {
	for _, off := range []bool{false, true} {
		p := For(Found{Systemd, 257}, Options{HostUsers: true, Off: off})
		if !slices.ContainsFunc(p.Files, func(f File) bool { return f.Path == "systemd/system/tmp.mount" && f.Link == "/dev/null" }) {
			t.Errorf("off %v: tmp.mount is not masked: %+v", off, p.Files)
		}
	}
}

func TestOneEntryCanBeLeftOut(t *testing.T) {
	all, less := For(Found{Systemd, 257}, Options{}), For(Found{Systemd, 257}, Options{Without: []string{"no-bpf", "no-kernel"}})
	want := slices.DeleteFunc(slices.Clone(all.Entries), func(n string) bool { return n == "no-bpf" })
	if diff := cmp.Diff(want, less.Entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff) // no-kernel stays: it is always there
	}
	if slices.ContainsFunc(less.Rules, func(r Rule) bool { return r.Call == "bpf" }) {
		t.Error("bpf is still refused")
	}
	if diff := cmp.Diff([]string{"bpf"}, less.Allow); diff != "" || len(all.Allow) > 0 {
		t.Errorf("allowed calls (-want +got):\n%s", diff)
	}
}

func TestOnlyEntriesThatAreNotAlwaysThereCanBeLeftOut(t *testing.T) {
	if err := CheckWithout([]string{"no-bpf", "mask-kernel"}); err != nil {
		t.Error(err)
	}
	for _, n := range []string{"no-bfp", "", "mount-run", "caps-machine"} {
		if err := CheckWithout([]string{"no-bpf", n}); !errors.Is(err, ErrEntry) || !strings.Contains(err.Error(), n) {
			t.Errorf("%q: %v", n, err)
		}
	}
}
