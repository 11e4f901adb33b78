package container

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/undo"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/google/go-cmp/cmp"
)

// shelf is a storage of plain directories that remembers disk limits.
type shelf struct {
	volumesIn
	used   int64
	limits map[uint64]int64
	refuse bool
}

func (s *shelf) SetLimit(_ context.Context, group uint64, bytes int64) error {
	if s.refuse {
		return storage.ErrNoSpace
	}
	s.limits[group] = bytes
	return nil
}

func (s *shelf) Usage(context.Context, uint64) (storage.Usage, error) {
	return storage.Usage{Bytes: s.used}, nil
}
func (s *shelf) DeleteGroup(context.Context, uint64) error { return nil }

// placed makes containers that do not run, without a kernel.
func placed(t *testing.T, configs ...Config) (*Manager, *shelf) {
	t.Helper()
	dir := t.TempDir()
	s := &shelf{volumesIn: volumesIn(filepath.Join(dir, "volumes")), limits: map[uint64]int64{}}
	m := &Manager{StateRoot: dir, RunRoot: filepath.Join(dir, "run"), Volumes: s}
	for i := range configs {
		c := &configs[i]
		st := State{Volume: c.Name, Generation: 1}
		err := errors.Join(os.MkdirAll(m.dir(c.Name), 0o700), os.MkdirAll(filepath.Join(s.Path(c.Name), "etc"), 0o755))
		err = errors.Join(err, stateSchema.Write(m.stateFile(c.Name), &st), configSchema.Write(m.configFile(c.Name), c))
		if err != nil {
			t.Fatal(err)
		}
	}
	return m, s
}

func other() Config {
	c := valid()
	c.Name, c.UID, c.CTID, c.Hostname = "web2", "fedcba9876543210", 8, "web2"
	c.Network.Interfaces = []netns.Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.8/32")}}}
	c.Network.Forwards = []netns.Forward{{Protocol: "tcp", HostPort: 80, Port: 80}}
	return c
}

func address(s string) func(*Config) error {
	return func(c *Config) error { return c.Network.AddAddress("", netip.MustParsePrefix(s)) }
}

func pids(n int64) func(*Config) error {
	return func(c *Config) error { c.Limits.PIDs = n; return nil }
}

func TestSetRefusesAndLeavesAllAsItWas(t *testing.T) {
	both := func(edits ...func(*Config) error) func(*Config) error {
		return func(c *Config) error {
			for _, e := range edits {
				if err := e(c); err != nil {
					return err
				}
			}
			return nil
		}
	}
	tests := map[string]struct {
		change Change
		want   error
	}{
		"a limit out of range":   {Change{Edit: both(address("10.0.0.9/32"), pids(-1))}, ErrConfig},
		"the address of another": {Change{Edit: both(pids(5), address("10.0.0.8/32"))}, ErrTaken},
		"the port of another": {Change{Edit: func(c *Config) error {
			c.Network.Publish(netns.Forward{Protocol: "tcp", HostPort: 80, Port: 1})
			return nil
		}}, ErrTaken},
		"no such address":               {Change{Edit: func(c *Config) error { return c.Network.RemoveAddress("", netip.MustParseAddr("10.0.0.1")) }}, ErrConfig},
		"the uid":                       {Change{Edit: func(c *Config) error { c.UID = "0000000000000000"; return nil }}, ErrConfig},
		"the name":                      {Change{Edit: func(c *Config) error { c.Name = "web9"; return nil }}, ErrConfig},
		"an end of what is saved":       {Change{Edit: pids(5), For: time.Hour}, ErrConfig},
		"for a while of what is down":   {Change{Edit: pids(5), Scope: Runtime, For: time.Hour}, ErrState},
		"a disk limit below its use":    {Change{Edit: func(c *Config) error { c.Limits.PIDs, c.Limits.DiskBytes = 5, 2<<20; return nil }}, quota.ErrBelowUsage},
		"what the edit itself refuses":  {Change{Edit: both(pids(5), func(*Config) error { return os.ErrInvalid })}, os.ErrInvalid},
		"a host name that can't be one": {Change{Edit: func(c *Config) error { c.Hostname = "a b"; return nil }}, ErrConfig},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, s := placed(t, valid(), other())
			s.used = 3 << 20
			config, err1 := os.ReadFile(m.configFile("web1"))
			state, err2 := os.ReadFile(m.stateFile("web1"))
			_, err := m.Set(t.Context(), "web1", tt.change)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			after, err3 := os.ReadFile(m.configFile("web1"))
			stateAfter, err4 := os.ReadFile(m.stateFile("web1"))
			if err := errors.Join(err1, err2, err3, err4); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(config)+string(state), string(after)+string(stateAfter)); diff != "" {
				t.Error(diff)
			}
			if len(s.limits) > 0 {
				t.Errorf("the storage has been told %v", s.limits)
			}
		})
	}
}

func TestSetSavesAndWritesWhatItWasAskedTo(t *testing.T) {
	m, s := placed(t, valid())
	etc := filepath.Join(s.Path("web1"), "etc")
	if err := os.WriteFile(filepath.Join(etc, "hosts"), []byte("127.0.1.1\tweb1\n10.0.0.1 web1 db\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	edit := func(c *Config) error {
		c.Hostname, c.Limits.DiskBytes = "mail", 8<<20
		c.Network.DNS, c.Network.Search = []netip.Addr{netip.MustParseAddr("192.0.2.53")}, []string{"example.org"}
		return nil
	}
	done, err := m.Set(t.Context(), "web1", Change{Edit: edit})
	if err != nil {
		t.Fatal(err)
	}
	if done.Before.Hostname != "web1" || done.After.Hostname != "mail" {
		t.Errorf("%+v", done)
	}
	want := map[string]string{
		"hostname": "mail\n", "hosts": "127.0.1.1\tmail\n10.0.0.1 web1 db\n",
		"resolv.conf": resolvMark + "search example.org\nnameserver 192.0.2.53\n",
	}
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(etc, name)); err != nil || string(got) != text {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(text, string(got)))
		}
	}
	c, st, err := m.read("web1")
	if err != nil || st.Intent != nil || c.Hostname != "mail" {
		t.Errorf("%+v %+v %v", c, st, err)
	}
	if s.limits[uint64(c.CTID)] != 8<<20 {
		t.Error(s.limits)
	}
}

func TestSetFollowsNoLinkOutOfTheContainer(t *testing.T) {
	m, s := placed(t, valid())
	outside := filepath.Join(t.TempDir(), "victim")
	err := os.WriteFile(outside, []byte("as it was"), 0o644)
	for _, name := range []string{"hostname", "resolv.conf"} {
		err = errors.Join(err, os.Symlink(outside, filepath.Join(s.Path("web1"), "etc", name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Set(t.Context(), "web1", Change{Edit: func(c *Config) error { c.Hostname = "mail"; return nil }})
	if !errors.Is(err, ErrConfig) { // inside, it leads nowhere
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "as it was" {
		t.Errorf("%q, %v", got, err)
	}
	if c, st, err := m.read("web1"); err != nil || st.Intent != nil || c.Hostname != "web1" {
		t.Errorf("%+v %+v %v", c, st, err)
	}
}

func TestSetUndoesWhatItHadDone(t *testing.T) {
	m, s := placed(t, valid())
	etc := filepath.Join(s.Path("web1"), "etc")
	err := errors.Join(
		os.WriteFile(filepath.Join(etc, "hostname"), []byte("mine\n"), 0o644),
		os.Symlink("nowhere/at/all", filepath.Join(etc, "resolv.conf")),
	)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Set(t.Context(), "web1", Change{Edit: func(c *Config) error {
		c.Hostname, c.Limits.DiskBytes, c.Network.Search = "mail", 8<<20, []string{"example.org"}
		return nil
	}})
	if !errors.Is(err, ErrConfig) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(etc, "hostname")); err != nil || string(got) != "mine\n" {
		t.Errorf("hostname: %q, %v", got, err)
	}
	if s.limits[7] != 0 {
		t.Error(s.limits)
	}
}

// Whatever moment Set is killed at, the next command finds all of the change or
// nothing of it.
func TestAKilledSetIsWholeOrNotThere(t *testing.T) {
	edit := func(c *Config) error {
		c.Hostname, c.Limits.DiskBytes = "mail", 8<<20
		return nil
	}
	for step := range 4 {
		t.Run(fmt.Sprint("killed after step ", step), func(t *testing.T) {
			m, s := placed(t, valid())
			etc := filepath.Join(s.Path("web1"), "etc")
			if err := os.WriteFile(filepath.Join(etc, "hostname"), []byte("web1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := killedAfter(t, m, edit, step); err != nil {
				t.Fatal(err)
			}
			done, err := m.Repair(t.Context(), "web1")
			if err != nil {
				t.Fatal(err)
			}
			c, st, err := m.read("web1")
			if err != nil || st.Intent != nil {
				t.Fatalf("%+v, %v", st, err)
			}
			want, disk := "web1", int64(0)
			if step == 3 {
				want, disk = "mail", 8<<20
			}
			if step > 0 && len(done) == 0 {
				t.Error("it does not say that it settled anything")
			}
			got, err := os.ReadFile(filepath.Join(etc, "hostname"))
			if err != nil || c.Hostname != want || string(got) != want+"\n" || s.limits[uint64(c.CTID)] != disk || c.Limits.DiskBytes != disk {
				t.Errorf("host name %s, in the file %q, disk %d, in the storage %d; %v", c.Hostname, got, c.Limits.DiskBytes, s.limits[7], err)
			}
		})
	}
}

// killedAfter does the beginning of a Set: 1 is the intent, 2 kernel and files, 3
// the configuration.
func killedAfter(t *testing.T, m *Manager, edit func(*Config) error, step int) error {
	t.Helper()
	l, err := m.Lock(t.Context(), "web1", "set")
	if err != nil {
		return err
	}
	c, _, err := l.think(Change{Edit: edit})
	if err == nil && step > 0 {
		err = l.promise(t.Context(), c)
	}
	if err == nil && step > 1 {
		err = l.apply(t.Context(), c, new(undo.Stack))
	}
	if err == nil && step > 2 {
		l.Config = c.saved
		err = l.SaveConfig()
	}
	return errors.Join(err, l.Unlock())
}

func TestASuspendedOneKeepsWhatItsProcessesHave(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	for name, edit := range map[string]func(*Config) error{
		"host name": func(c *Config) error { c.Hostname = "mail"; return nil },
		"dns":       func(c *Config) error { c.Network.Search = []string{"example.org"}; return nil },
	} {
		if _, err := m.Set(t.Context(), "web1", Change{Edit: edit}); !errors.Is(err, ErrState) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func suspend(t *testing.T, m *Manager, name string) {
	t.Helper()
	_, st, err := m.read(name)
	st.Suspended = "suspend-1"
	if err = errors.Join(err, stateSchema.Write(m.stateFile(name), &st)); err != nil {
		t.Fatal(err)
	}
}

// What was changed for a while is over by itself, and what was saved meanwhile
// holds at once.
func TestUnsavedChangesEndAndDoNotHideSavedOnes(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	set := func(ch Change) (until time.Time) {
		t.Helper()
		done, err := m.Set(t.Context(), "web1", ch)
		if err != nil {
			t.Fatal(err)
		}
		return done.Until
	}
	want := func(memory, pids int64, saved int64) {
		t.Helper()
		info, err := m.Get(t.Context(), "web1")
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := m.read("web1")
		if err != nil || info.Config.Limits.MemoryBytes != memory || info.Config.Limits.PIDs != pids || c.Limits.PIDs != saved {
			t.Errorf("in effect %s, saved %s, %v", info.Config.Limits, c.Limits, err)
		}
	}
	memory := func(c *Config) error { c.Limits.MemoryBytes = 1 << 30; return nil }
	set(Change{Edit: memory, Scope: Runtime})
	set(Change{Edit: pids(200), Scope: Runtime, For: 50 * time.Millisecond})
	want(1<<30, 200, 100)
	set(Change{Edit: pids(300)})
	want(1<<30, 300, 300)
	time.Sleep(time.Until(set(Change{Edit: pids(400), Scope: Runtime, For: time.Millisecond}))) // the point is that this moment passes
	if _, err := m.Repair(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	want(1<<30, 300, 300)
	set(Change{Edit: func(c *Config) error { c.Limits.MemoryBytes = 0; return nil }}) // as it is saved
	want(0, 300, 300)
}

func TestWhatIsSaidAgainLastsFromThenOn(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	var ends []time.Time
	for _, d := range []time.Duration{time.Minute, time.Hour} {
		done, err := m.Set(t.Context(), "web1", Change{Edit: pids(200), Scope: Runtime, For: d})
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, done.Until)
	}
	c, st, err := m.read("web1")
	if err != nil || len(st.Overlay) != 1 {
		t.Fatalf("%+v, %v", st.Overlay, err)
	}
	for i, want := range []int64{200, 100} { // after the first end, and after the second
		then, err := overlaid(c, lasting(st.Overlay, ends[i]))
		if err != nil || then.Limits.PIDs != want {
			t.Errorf("after end %d: %s, %v", i+1, then.Limits, err)
		}
	}
}

func TestOnlyLimitsAndNetworkChangeForAWhile(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	for name, edit := range map[string]func(*Config) error{
		"restart": func(c *Config) error { c.Restart = "always"; return nil },
		"env":     func(c *Config) error { c.Env = []string{"A=1"}; return nil },
		"disk":    func(c *Config) error { c.Limits.DiskBytes = 1 << 30; return nil },
		"dns":     func(c *Config) error { c.Network.Search = []string{"example.org"}; return nil },
	} {
		if _, err := m.Set(t.Context(), "web1", Change{Edit: edit, Scope: Runtime}); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Two containers that want the same address at once: one gets it, though neither
// has it in its file yet.
func TestAnAddressThatIsJustBeingGivenIsTaken(t *testing.T) {
	m, _ := placed(t, valid(), other())
	l, err := m.Lock(t.Context(), "web1", "set")
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := l.think(Change{Edit: address("10.0.0.50/32")})
	if err == nil {
		err = l.promise(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Set(t.Context(), "web2", Change{Edit: address("10.0.0.50/32")}); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(l.finish(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Set(t.Context(), "web2", Change{Edit: address("10.0.0.50/32")}); err != nil {
		t.Error(err)
	}
}

// Random changes of a container that does not run against a model that only
// knows what was accepted.
func TestRandomChangesOfAStoppedContainerKeepToTheModel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	m, s := placed(t, valid(), other())
	model := valid()
	for i := range 100 {
		edit := randomEdit(r)
		next, err := edited(model, edit)
		if err == nil {
			err = next.Validate()
		}
		taken := err == nil && (takesAddress(next) || next.Limits.DiskBytes > 0 && next.Limits.DiskBytes < 3<<20 && next.Limits.DiskBytes != model.Limits.DiskBytes)
		s.used = 3 << 20
		_, got := m.Set(t.Context(), "web1", Change{Edit: edit})
		if (got == nil) != (err == nil && !taken) {
			t.Fatalf("change %d: got %v, the model says %v, taken %v", i, got, err, taken)
		}
		if got == nil {
			model = next
		}
		c, st, err := m.read("web1")
		if err != nil || st.Intent != nil {
			t.Fatal(st.Intent, err)
		}
		if diff := cmp.Diff(model, c, asSets); diff != "" {
			t.Fatal(diff)
		}
		if s.limits[uint64(c.CTID)] != model.Limits.DiskBytes {
			t.Fatalf("the storage has %v", s.limits)
		}
	}
}

func takesAddress(c Config) bool {
	for _, p := range c.Network.Addresses() {
		if p.Addr() == netip.MustParseAddr("10.0.0.8") {
			return true
		}
	}
	return false
}

func randomEdit(r *rand.Rand) func(*Config) error {
	a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(12))}), 32)
	n := r.Int64N(6)
	kind, name := r.IntN(6), []string{"web1", "mail", "a b"}[r.IntN(3)]
	return func(c *Config) error {
		switch kind {
		case 0:
			return c.Network.AddAddress("", a)
		case 1:
			return c.Network.RemoveAddress("", a.Addr())
		case 2:
			c.Limits.PIDs = n - 1 // sometimes below nothing
		case 3:
			c.Limits.DiskBytes = n << 20
		case 4:
			c.Limits.CPUs = float64(n) / 2
			return c.Network.AddAddress("", a)
		case 5:
			c.Hostname = name
		}
		return nil
	}
}

// However an admin writes an address into the file of a container, it is found.
func TestAnAddressIsFoundInEveryNotation(t *testing.T) {
	for written, asked := range map[string]string{
		"fd00::7/128": "fd00::7/64", "FD00:0:0:0::0007/64": "fd00::7/128", "fd00:0:0:0:0:0:0:7/128": "fd00::7/128",
		"fd00::ABCD/128": "fd00::abcd/128", "fd00::/128": "fd00::0/128", "10.0.0.77/24": "10.0.0.77/32",
		"fd00::aBcD/128": "fd00::abcd/128", "64:ff9b::10.0.0.171/96": "64:ff9b::a00:ab/96",
	} {
		m, _ := placed(t, valid(), other())
		raw, err := os.ReadFile(m.configFile("web2"))
		if err != nil {
			t.Fatal(err)
		}
		raw = []byte(strings.Replace(string(raw), "10.0.0.8/32", written, 1))
		if err := os.WriteFile(m.configFile("web2"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Set(t.Context(), "web1", Change{Edit: address(asked)}); !errors.Is(err, ErrTaken) {
			t.Errorf("%s, of one that has %s: %v", asked, written, err)
		}
	}
}
