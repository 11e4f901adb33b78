package quota

import (
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limitedGroup is a real group on a host that has all controllers.
func limitedGroup(t *testing.T) Group {
	t.Helper()
	needRoot(t)
	l, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if m := l.Missing(); len(m) > 0 {
		t.Skipf("the host lacks %v", m)
	}
	return realGroup(t, hostMounts(t))
}

func TestProbeDescribesThisHost(t *testing.T) {
	l, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v missing %v", l, l.Missing())
	if !slices.Contains([]string{ModeV1, ModeHybrid, ModeV2}, l.Mode) || (l.Unified == "") != (l.Mode == ModeV1) {
		t.Errorf("%+v", l)
	}
}

func TestLimitsAreReadBackFromTheKernel(t *testing.T) {
	g := limitedGroup(t)
	for _, want := range []Limits{
		{CPUs: 1.5, MemoryBytes: 256 << 20, PIDs: 50},
		{CPUWeight: 1, CPUSet: "0", MemoryBytes: 256 << 20, SwapBytes: UnlimitedSwap},
		{CPUWeight: 10000, MemoryBytes: 256 << 20, SwapBytes: 1 << 30},
		{CPUs: 0.01, MemoryBytes: 64 << 20, PIDs: 1},
		{CPUs: 8192, MemoryBytes: 1 << 40, PIDs: MaxPIDs},
		{CPUs: 0.5},
		{},
	} {
		if err := g.Apply(want); err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if got, err := g.Read(); err != nil || !got.Equal(want) {
			t.Errorf("read %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestTheMemoryLimitIsEnforced(t *testing.T) {
	g := limitedGroup(t)
	if err := g.Apply(Limits{MemoryBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	cmd, out := play(t, g, nil, partEat, "134217728")
	if s, err := out.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Fatalf("the process filled twice its limit: %q, %v", s, err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v, want SIGKILL", err)
	}
	if u, err := g.Usage(); err != nil || u.Memory.OOMKills == 0 || u.Memory.Failures == 0 || u.Memory.MaxHeld < 60<<20 || u.Memory.Limit != 64<<20 {
		t.Errorf("usage %+v, %v: want an OOM kill and the limit met", u.Memory, err)
	}
}

func TestALimitBelowUsageIsRefusedAndChangesNothing(t *testing.T) {
	g := limitedGroup(t)
	old := Limits{CPUs: 2, MemoryBytes: 512 << 20, PIDs: 100}
	if err := g.Apply(old); err != nil {
		t.Fatal(err)
	}
	_, out := play(t, g, nil, partEat, "134217728")
	expect(t, out, "full")
	for _, l := range []Limits{{CPUs: 1, MemoryBytes: 64 << 20, PIDs: 90}, {CPUs: 1, MemoryBytes: 256 << 20, PIDs: 1}} {
		err := g.Apply(l)
		t.Log(err)
		if !errors.Is(err, ErrBelowUsage) || !strings.Contains(err.Error(), "set at least") {
			t.Errorf("%+v: %v, want ErrBelowUsage and a cure", l, err)
		}
		if got, err := g.Read(); err != nil || !got.Equal(old) {
			t.Errorf("after the refusal: %+v, %v, want %+v", got, err, old)
		}
	}
	u, err := g.Usage()
	if err != nil || u.Memory.Held < 128<<20 || u.PIDs.Held < 2 || u.Memory.OOMKills != 0 || u.CPU.Time == 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	want := Limits{CPUs: 1, MemoryBytes: 256 << 20, PIDs: 90}
	if err := g.Apply(want); err != nil {
		t.Errorf("a limit above usage: %v", err)
	}
	if got, err := g.Read(); err != nil || !got.Equal(want) {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
}

func TestThePIDsLimitIsEnforced(t *testing.T) {
	g := limitedGroup(t)
	if err := g.Apply(Limits{PIDs: 5}); err != nil {
		t.Fatal(err)
	}
	// A shell ends when it cannot fork.
	cmd, _ := run(t, g, "", func(c *exec.Cmd) { c.Stderr = io.Discard }, "/bin/sh", "-c", "while :; do sleep 1000 & done")
	if err := cmd.Wait(); err == nil {
		t.Error("the shell forked without end")
	}
	u, err := g.Usage()
	if err != nil || u.PIDs.Held != 4 || u.PIDs.Failures == 0 || u.PIDs.Limit != 5 {
		t.Errorf("usage %+v, %v: want the 4 children left and a refused fork", u, err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) != 4 {
		t.Errorf("PIDs: %v, %v, want 4", pids, err)
	}
}

func TestTheCPULimitIsEnforced(t *testing.T) {
	g := limitedGroup(t)
	if err := g.Apply(Limits{CPUs: 0.2}); err != nil {
		t.Fatal(err)
	}
	run(t, g, "", nil, "/bin/sh", "-c", "while :; do :; done")
	run(t, g, "", nil, "/bin/sh", "-c", "while :; do :; done")
	begin, before := time.Now(), cpuTime(t, g)
	eventually(t, "a second, with throttling in it", func() bool {
		u, err := g.Usage()
		return err == nil && u.CPU.Failures > 0 && u.CPU.ThrottledTime > 0 && time.Since(begin) > time.Second
	})
	share := float64(cpuTime(t, g)-before) / float64(time.Since(begin))
	t.Logf("%.2f CPUs used", share)
	if share > 0.35 {
		t.Errorf("%.2f CPUs used, want at most 0.2", share)
	}
	if u, err := g.Usage(); err != nil || u.CPU.Failures == 0 || u.CPU.ThrottledTime == 0 || u.CPU.Limit != 0.2 {
		t.Errorf("usage %+v, %v: want periods in which it was throttled", u.CPU, err)
	}
}

func TestLeftoversSeesARealGroup(t *testing.T) {
	g := realGroup(t, hostMounts(t))
	others := func(name string) bool { return name != g.Name() }
	if names, err := Leftovers(others); err != nil || !slices.Equal(names, []string{g.Name()}) {
		t.Errorf("got %v, %v, want %s", names, err, g.Name())
	}
	if err := g.Remove(deadline(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if names, err := Leftovers(others); err != nil || len(names) != 0 {
		t.Errorf("after Remove: %v, %v", names, err)
	}
}
