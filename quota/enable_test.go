package quota

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// cpu cannot be enabled while there are realtime tasks.
func withoutCPU(t *testing.T) Group {
	t.Helper()
	g := fakeV2(t)
	put(t, g.mounts.unified, map[string]string{"cgroup.subtree_control": "memory pids"})
	g.mounts.write = func(path, value string) error {
		if filepath.Base(path) != "cgroup.subtree_control" {
			return fakeWrite(path, value)
		}
		if value == "+cpu" {
			return unix.EINVAL
		}
		return nil
	}
	return g
}

func TestAControllerThatCannotBeEnabledIsInTheWayOfItsOwnLimitsOnly(t *testing.T) {
	for _, l := range []Limits{{}, {PIDs: 50}, {MemoryBytes: 1 << 30}} {
		if err := withoutCPU(t).Apply(l); err != nil {
			t.Errorf("%s: %v", l, err)
		}
	}
	for flag, l := range map[string]Limits{"cpus": {CPUs: 1, PIDs: 50}, "cpu-weight": {CPUWeight: 50}} {
		g := withoutCPU(t)
		err := g.Apply(l)
		if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), flag+": enable the cpu controller") {
			t.Errorf("%s: %v", l, err)
		}
		if got := get(t, g.Unified()+"/pids.max"); got != "max" {
			t.Errorf("%s: pids.max is %s all the same", l, got)
		}
	}
}

func TestAGroupIsMadeWithoutAControllerThatCannotBeEnabled(t *testing.T) {
	if err := withoutCPU(t).Make(); err != nil {
		t.Error(err)
	}
}

// Else Apply would find no file, and say that the kernel has no such limit.
func TestEveryLimitNamesTheControllerThatItNeeds(t *testing.T) {
	for controller, all := range map[string][]Limits{
		"cpu":    {{CPUs: 1}, {CPUWeight: 1}},
		"cpuset": {{CPUSet: "0"}},
		"io":     {{IOWeight: 1}, {IO: []IOLimit{{Device: Pool, ReadBPS: 1 << 20}}}},
		"memory": {{MemoryBytes: 1 << 30}, {MemoryHighBytes: 1 << 30}, {MemoryMinBytes: 1 << 30}},
		"pids":   {{PIDs: 1}},
	} {
		for _, l := range all {
			if got := l.controllers(); len(got) != 1 || got[controller] == "" {
				t.Errorf("%s: %v, want %s", l, got, controller)
			}
		}
	}
	for _, l := range []Limits{{}, {SwapBytes: UnlimitedSwap}, {DiskBytes: 1 << 30, DiskWarnPercent: 90}} {
		if got := l.controllers(); len(got) != 0 {
			t.Errorf("%s: %v, want none", l, got)
		}
	}
}
