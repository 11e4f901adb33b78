package quota

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
)

const spin = "while :; do :; done"

// Both groups have to share one CPU, whatever else the host does on it.
func TestCPUTimeIsSharedByWeight(t *testing.T) {
	heavy, light := limitedGroup(t), limitedGroup(t)
	for g, weight := range map[*Group]int64{&heavy: 300, &light: 100} {
		if err := g.Apply(Limits{CPUSet: "0", CPUWeight: weight}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		run(t, heavy, "", nil, "/bin/sh", "-c", spin)
		run(t, light, "", nil, "/bin/sh", "-c", spin)
	}
	h, l := cpuTime(t, heavy), cpuTime(t, light)
	var gotHeavy, gotLight time.Duration
	for end := time.Now().Add(time.Minute); gotHeavy+gotLight < 2*time.Second; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute %v and %v of one CPU", gotHeavy, gotLight)
		}
		gotHeavy, gotLight = cpuTime(t, heavy)-h, cpuTime(t, light)-l
	}
	ratio := float64(gotHeavy) / float64(gotLight)
	t.Logf("weights 300 and 100: %v and %v, ratio %.2f", gotHeavy, gotLight, ratio)
	if ratio < 2 || ratio > 4.5 {
		t.Errorf("cpu time is shared %.2f to 1, want 3", ratio)
	}
}

func TestACPUSetHoldsForProcessesThatRunAlready(t *testing.T) {
	g := limitedGroup(t)
	cmd, _ := run(t, g, "", nil, "sleep", "1000")
	allowed := func() string {
		s, err := readText(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(s, "Cpus_allowed_list:")
		line, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		return line
	}
	all := allowed()
	if err := g.Apply(Limits{CPUSet: "0"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "on CPU 0 only", func() bool { return allowed() == "0" })
	if err := g.Apply(Limits{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "on all CPUs again", func() bool { return allowed() == all })
}

// diskBelow is the disk of a directory for the tests.
func diskBelow(t *testing.T) (dir, device string) {
	t.Helper()
	dir = testutil.TempDir(t)
	testutil.Require(t, func() error {
		numbers, err := disksOf(dir)
		if err != nil {
			return fmt.Errorf("a disk below %s: %w", dir, err)
		}
		device = deviceName(numbers[0])
		return nil
	})
	return dir, device
}

func TestTransfersAreThrottledAndCounted(t *testing.T) {
	dir, device := diskBelow(t)
	file := dir + "/file"
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+file, "bs=1M", "count=8", "oflag=direct").CombinedOutput(); err != nil {
		t.Fatalf("dd: %v %s", err, out)
	}
	for name, tc := range map[string]struct {
		limit IOLimit
		dd    []string
		least time.Duration // half of what the limit alone makes it take
	}{
		"read bandwidth":   {IOLimit{ReadBPS: 4 << 20}, []string{"if=" + file, "of=/dev/null", "bs=1M", "count=8", "iflag=direct"}, time.Second},
		"write bandwidth":  {IOLimit{WriteBPS: 4 << 20}, []string{"if=/dev/zero", "of=" + file, "bs=1M", "count=8", "oflag=direct", "conv=notrunc"}, time.Second},
		"read operations":  {IOLimit{ReadIOPS: 100}, []string{"if=" + file, "of=/dev/null", "bs=4k", "count=200", "iflag=direct"}, time.Second},
		"write operations": {IOLimit{WriteIOPS: 100}, []string{"if=/dev/zero", "of=" + file, "bs=4k", "count=200", "oflag=direct", "conv=notrunc"}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			g := limitedGroup(t).WithPool(dir)
			tc.limit.Device = Pool
			if err := g.Apply(Limits{IO: []IOLimit{tc.limit}}); err != nil {
				t.Fatal(err)
			}
			var tally Tally
			count := func() IOUsage {
				u, err := g.Usage()
				if err != nil {
					t.Fatal(err)
				}
				tally = tally.Count(u)
				return find(tally.Total().IO, device)
			}
			count()
			begin := time.Now()
			cmd, _ := run(t, g, "", func(c *exec.Cmd) { c.Stderr = nil }, append([]string{"dd"}, tc.dd...)...)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			d := count()
			t.Logf("%v, %+v", took, d)
			if took < tc.least {
				t.Errorf("took %v, the limit alone makes it %v", took, 2*tc.least)
			}
			if d.ReadBytes+d.WriteBytes < 200*4096 || d.Reads+d.Writes == 0 || d.Limit == (IOLimit{Device: device}) {
				t.Errorf("counted: %+v", d)
			}
		})
	}
}

func TestMemoryHighSlowsDownWithoutKilling(t *testing.T) {
	g := limitedGroup(t)
	err := g.Apply(Limits{MemoryHighBytes: 32 << 20})
	if _, v1 := g.dirOf("memory"); v1 {
		var e *UnsupportedError
		if !errors.As(err, &e) || e.Limit != "memory-high" || e.Version != "v1" {
			t.Errorf("with cgroup v1: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	file := testutil.TempDir(t) + "/file" // page cache, which can be reclaimed
	cmd, _ := run(t, g, "", func(c *exec.Cmd) { c.Stderr = nil }, "dd", "if=/dev/zero", "of="+file, "bs=1M", "count=96", "conv=fsync")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	u, err := g.Usage()
	t.Logf("%+v, %v", u.Memory, err)
	if err != nil || u.Memory.HighHits == 0 || u.Memory.OOMKills != 0 || u.Memory.Held > 64<<20 {
		t.Errorf("usage %+v, %v: want it held near 32 MiB, with hits", u.Memory, err)
	}
}

func TestPressureIsReadWhereTheKernelHasIt(t *testing.T) {
	g := limitedGroup(t)
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if want := g.Unified() != "" && exists(g.Unified()+"/cpu.pressure"); want != (u.Pressure.CPU != nil) || want != (u.Pressure.IO != nil) {
		t.Errorf("pressure %+v, want it: %v", u.Pressure, want)
	}
}
