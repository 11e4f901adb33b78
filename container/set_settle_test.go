package container

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/undo"
	"github.com/google/go-cmp/cmp"
)

// half does all of a Set but its commit, and lets go as a kill would.
func half(t *testing.T, m *Manager, ch Change) {
	t.Helper()
	l, err := m.Lock(t.Context(), "web1", "set")
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := l.think(ch)
	if err == nil {
		err = l.promise(t.Context(), c)
	}
	if err == nil {
		err = l.apply(t.Context(), c, new(undo.Stack))
	}
	if err := errors.Join(err, l.Unlock()); err != nil {
		t.Fatal(err)
	}
}

// Its limits may be what the kernel refuses, which nobody had asked yet.
func TestAnUnsavedChangeThatWasKilledIsNotThere(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	if _, err := m.Set(t.Context(), "web1", Change{Edit: pids(200), Scope: Runtime}); err != nil {
		t.Fatal(err)
	}
	half(t, m, Change{Edit: pids(300), Scope: Runtime})
	if _, err := m.Repair(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	info, err := m.Get(t.Context(), "web1")
	if err != nil || info.State.Intent != nil || info.Config.Limits.PIDs != 200 {
		t.Errorf("%s, %+v, %v", info.Config.Limits, info.State, err)
	}
}

// A supervisor that starts a container anew does not settle what was interrupted.
func TestAKilledSetBringsNoUnsavedChangeIntoTheNextLife(t *testing.T) {
	m, _ := placed(t, valid())
	suspend(t, m, "web1")
	memory := func(c *Config) error { c.Limits.MemoryBytes = 1 << 30; return nil }
	if _, err := m.Set(t.Context(), "web1", Change{Edit: memory, Scope: Runtime}); err != nil {
		t.Fatal(err)
	}
	if err := killedAfter(t, m, pids(300), 3); err != nil {
		t.Fatal(err)
	}
	_, st, err := m.read("web1")
	st.Overlay = nil
	if err := errors.Join(err, stateSchema.Write(m.stateFile("web1"), &st)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Repair(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	c, st, err := m.read("web1")
	if err != nil || len(st.Overlay) > 0 || c.Limits.PIDs != 300 {
		t.Errorf("%s, %+v, %v", c.Limits, st, err)
	}
}

func TestFilesArePutBackByteForByte(t *testing.T) {
	m, s := placed(t, valid())
	hosts := filepath.Join(s.Path("web1"), "etc", "hosts")
	text := "127.0.1.1\tweb1\n# caf\xe9 \x01\n"
	if err := os.WriteFile(hosts, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	half(t, m, Change{Edit: func(c *Config) error { c.Hostname = "mail"; return nil }})
	if _, err := m.Repair(t.Context(), "web1"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(hosts); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
}

// Whoever is root inside must not be able to keep a container from being managed.
func TestAFileThatCannotBePutBackHoldsNobodyUp(t *testing.T) {
	m, s := placed(t, valid())
	half(t, m, Change{Edit: func(c *Config) error { c.Hostname = "mail"; return nil }})
	name := filepath.Join(s.Path("web1"), "etc", "hostname")
	if err := errors.Join(os.Remove(name), os.Mkdir(name, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Set(t.Context(), "web1", Change{Edit: pids(300)}); err != nil {
		t.Error(err)
	}
}

func TestASavedHostNameIsInTheFilesThoughItWasInEffectAlready(t *testing.T) {
	m, s := placed(t, valid())
	l, err := m.Lock(t.Context(), "web1", "set")
	if err != nil {
		t.Fatal(err)
	}
	named := func(c *Config) error { c.Hostname = "mail"; return nil }
	c, _, err := l.think(Change{Edit: named})
	c.from.Hostname = "mail" // for a while
	if err == nil {
		err = l.carryOut(t.Context(), c)
	}
	if err := errors.Join(err, l.Unlock()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(s.Path("web1"), "etc", "hostname")); err != nil || string(got) != "mail\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// Else it could never be taken back.
func TestWhatStandsOnAPassingChangeIsRefused(t *testing.T) {
	swap := func(c *Config) error { c.Limits.SwapBytes = 64 << 20; return nil }
	memory := func(c *Config) error { c.Limits.MemoryBytes = 256 << 20; return nil }
	for name, first := range map[string]struct {
		hold time.Duration
		want error
	}{"for a while": {time.Hour, ErrConfig}, "until the next start": {0, nil}} {
		t.Run(name, func(t *testing.T) {
			m, _ := placed(t, valid())
			suspend(t, m, "web1")
			if _, err := m.Set(t.Context(), "web1", Change{Edit: memory, Scope: Runtime, For: first.hold}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Set(t.Context(), "web1", Change{Edit: swap, Scope: Runtime}); !errors.Is(err, first.want) {
				t.Errorf("got %v, want %v", err, first.want)
			}
		})
	}
}

// A rollback brings an old configuration back, whose address may be another's now.
func TestAnOldConfigurationTakesNoAddressOfAnother(t *testing.T) {
	m, _ := placed(t, valid(), other())
	l, err := m.Lock(t.Context(), "web1", "rollback")
	if err != nil {
		t.Fatal(err)
	}
	old, err := edited(l.Config, address("10.0.0.8/32"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.BeginAs(t.Context(), Intent{Op: "rollback"}, old, nil); !errors.Is(err, ErrTaken) || l.State.Intent != nil {
		t.Errorf("got %v, intent %v", err, l.State.Intent)
	}
	free, err := edited(l.Config, address("10.0.0.9/32"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.BeginAs(t.Context(), Intent{Op: "rollback"}, free, nil); err != nil {
		t.Fatal(err)
	}
	taken, err := m.taken("web2")
	want := map[netip.Addr]string{netip.MustParseAddr("10.0.0.9"): "web1"}
	for _, p := range l.Config.Network.Addresses() {
		want[p.Addr()] = "web1"
	}
	if diff := cmp.Diff(want, taken.addresses, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("while it is under way: %v\n%s", err, diff)
	}
	if err := errors.Join(l.finish(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
}
