package quota

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// put writes files below a directory, making directories.
func put(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func get(t testing.TB, path string) string {
	t.Helper()
	s, err := readText(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeV2 is a host with cgroup2 only and one group in it.
func fakeV2(t testing.TB) Group {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"cgroup.controllers":     "cpuset cpu io memory pids",
		"cgroup.subtree_control": "cpu memory pids",
		"cpuset.cpus.effective":  "0-7",

		"ctctl.keep/cgroup.subtree_control": "",
	})
	put(t, dir+"/ctctl-0123", map[string]string{
		"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "", "cgroup.procs": "", "cgroup.threads": "",
		"cgroup.freeze": "0", "cgroup.events": "populated 0\nfrozen 0", "cgroup.max.descendants": "max", "cgroup.max.depth": "max",
		"memory.max": "max", "memory.high": "max", "memory.min": "0", "memory.current": "104857600", "memory.peak": "209715200",
		"memory.stat":     "anon 4096\ninactive_file 41943040\nactive_file 20971520",
		"memory.events":   "low 0\nhigh 4\nmax 11\noom 3\noom_kill 2",
		"memory.swap.max": "max", "memory.swap.current": "4096", "memory.swap.peak": "8192", "memory.swap.events": "high 0\nmax 6\nfail 8",
		"cpu.max": "max 100000", "cpu.weight": "100", "cpuset.cpus": "0-7",
		"cpu.stat": "usage_usec 1500000\nuser_usec 1\nnr_periods 40\nnr_throttled 7\nthrottled_usec 3000000",
		"pids.max": "max", "pids.current": "12", "pids.peak": "31", "pids.events": "max 5", "pids.events.local": "max 1",
		"io.max": "999:0 rbps=1048576 wbps=max riops=max wiops=120", "io.weight": "default 100\n999:0 50",
		"io.stat":      "999:0 rbytes=8192 wbytes=4096 rios=2 wios=1 dbytes=0 dios=0",
		"cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.05 total=2000",
		"io.pressure":  "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=99.99 avg60=0.00 avg300=0.00 total=5",
	})
	return openFake(t, mounts{v1: map[string]string{}, unified: dir})
}

// openFake opens the group that all the fake hosts have.
func openFake(t testing.TB, m mounts) Group {
	t.Helper()
	m.disks, m.write = fakeDisks, fakeWrite
	g, err := openIn(m, "/ctctl-0123")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fakeDisks: the fake hosts have two disks, the first of them with a partition.
// No kernel has the number.
func fakeDisks(path string) ([]string, error) {
	switch path {
	case "/dev/fake0", "/dev/fake0p1":
		return []string{"999:0"}, nil
	case "/dev/fake1":
		return []string{"999:1"}, nil
	case "/fake/pool":
		return []string{"999:0", "999:1"}, nil
	}
	return nil, errors.New("is not there")
}

// fakeV1 is a host without cgroup2 and one group in it.
func fakeV1(t testing.TB) Group {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"memory/ctctl-0123/memory.limit_in_bytes":       "9223372036854771712",
		"memory/ctctl-0123/memory.memsw.limit_in_bytes": "9223372036854771712",
		"memory/ctctl-0123/memory.memsw.usage_in_bytes": "104861696",
		"memory/ctctl-0123/memory.memsw.failcnt":        "6",
		"memory/ctctl-0123/memory.usage_in_bytes":       "104857600",
		"memory/ctctl-0123/memory.max_usage_in_bytes":   "209715200",
		"memory/ctctl-0123/memory.failcnt":              "11",
		"memory/ctctl-0123/memory.stat":                 "total_inactive_file 4096\ntotal_active_file 4096\ntotal_swap 4096",
		"memory/ctctl-0123/memory.oom_control":          "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
		"memory/memory.swappiness":                      "60",
		"memory/ctctl-0123/memory.swappiness":           "60",
		"cpu/ctctl-0123/cpu.cfs_period_us":              "50000",
		"cpu/ctctl-0123/cpu.cfs_quota_us":               "-1",
		"cpu/ctctl-0123/cpu.shares":                     "1024",
		"cpu/ctctl-0123/cpu.stat":                       "nr_periods 40\nnr_throttled 7\nthrottled_time 3000000000",
		"cpu/ctctl-0123/cpuacct.usage":                  "1500000000",
		"cpuset/cpuset.cpus":                            "0-7",
		"cpuset/cpuset.mems":                            "0",
		"cpuset/ctctl-0123/cpuset.cpus":                 "0-7",
		"cpuset/ctctl-0123/cpuset.mems":                 "0",
		"pids/ctctl-0123/pids.max":                      "max",
		"pids/ctctl-0123/pids.current":                  "12",
		"pids/ctctl-0123/pids.peak":                     "31",
		"pids/ctctl-0123/pids.events":                   "max 3",
		"pids/ctctl-0123/below/pids.events":             "max 2",
		"blkio/ctctl-0123/" + ioBytesV1:                 "999:0 Read 8192\n999:0 Write 4096\n999:0 Sync 4096\n999:0 Total 12288\nTotal 12288",
		"blkio/ctctl-0123/" + ioCountsV1:                "999:0 Read 2\n999:0 Write 1\n999:0 Total 3\nTotal 3",
		"blkio/ctctl-0123/" + throttleFiles[0]:          "999:0 1048576",
		"blkio/ctctl-0123/" + throttleFiles[1]:          "",
		"blkio/ctctl-0123/" + throttleFiles[2]:          "",
		"blkio/ctctl-0123/" + throttleFiles[3]:          "999:0 120",
		"blkio/ctctl-0123/blkio.bfq.weight":             "100",
	})
	return openFake(t, mounts{v1: map[string]string{
		"memory": dir + "/memory", "cpu": dir + "/cpu", "cpuacct": dir + "/cpu", "pids": dir + "/pids",
		"cpuset": dir + "/cpuset", "blkio": dir + "/blkio",
	}})
}

var fakes = map[string]func(testing.TB) Group{"v1": fakeV1, "v2": fakeV2}

func TestApplyIsReadBackAndZeroTakesLimitsAway(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		for _, want := range []Limits{
			{CPUs: 1.1, MemoryBytes: 512 << 20, PIDs: 100},
			{CPUs: 0.01, MemoryBytes: 256 << 20, PIDs: 12},
			{CPUs: 64},
			{},
		} {
			if err := g.Apply(want); err != nil {
				t.Fatalf("%s: %+v: %v", name, want, err)
			}
			got, err := g.Read()
			if name == "v1" && got.MemoryBytes == -1 { // the kernel would print its maximum
				got.MemoryBytes = 0
			}
			if err != nil || !got.Equal(want) {
				t.Errorf("%s: read %+v, %v, want %+v", name, got, err, want)
			}
		}
	}
}

func TestApplyWritesWhatTheKernelWants(t *testing.T) {
	l := Limits{CPUs: 1.5, MemoryBytes: 512 << 20, PIDs: 100}
	want := map[string]map[string]string{
		"v2": {"memory.max": "536870912", "memory.swap.max": "0", "memory.high": "max", "cpu.max": "150000 100000", "pids.max": "100"},
		"v1": {
			"memory.limit_in_bytes": "536870912", "memory.memsw.limit_in_bytes": "536875008",
			"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000", "pids.max": "100",
		},
	}
	for name, fake := range fakes {
		g := fake(t)
		if err := g.Apply(l); err != nil {
			t.Fatal(err)
		}
		for file, text := range want[name] {
			dir, _ := g.dirOf(strings.SplitN(file, ".", 2)[0])
			if got := get(t, dir+"/"+file); got != text {
				t.Errorf("%s: %s is %q, want %q", name, file, got, text)
			}
		}
	}
}

// contents are all files of the group in all hierarchies.
func contents(t testing.TB, g Group) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range g.each() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				all[path] = get(t, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestApplyThatFailsChangesNothing(t *testing.T) {
	for _, tc := range []struct {
		name, layout string
		limits       Limits
		spoil        string // file to remove
		want         error
	}{
		{"tasks above", "v1", Limits{CPUs: 1, MemoryBytes: 1 << 30, PIDs: 11}, "", ErrBelowUsage},
		{"tasks above", "v2", Limits{CPUs: 1, MemoryBytes: 1 << 30, PIDs: 11}, "", ErrBelowUsage},
		{"memory above", "v2", Limits{CPUs: 1, MemoryBytes: 64 << 20, PIDs: 50}, "", ErrBelowUsage},
		{"no controller", "v1", Limits{CPUs: 1, MemoryBytes: 1 << 30, PIDs: 50}, "memory.limit_in_bytes", ErrUnsupported},
		{"no controller", "v2", Limits{CPUs: 1, MemoryBytes: 1 << 30, PIDs: 50}, "memory.max", ErrUnsupported},
		{"no period", "v1", Limits{CPUs: 1, MemoryBytes: 1 << 30, PIDs: 50}, "cpu.cfs_period_us", fs.ErrNotExist},
		{"out of range", "v2", Limits{CPUs: -1, PIDs: 50}, "", ErrBadLimit},
	} {
		g := fakes[tc.layout](t)
		if tc.spoil != "" {
			dir, _ := g.dirOf(strings.SplitN(tc.spoil, ".", 2)[0])
			if err := os.Remove(dir + "/" + tc.spoil); err != nil {
				t.Fatal(err)
			}
		}
		before := contents(t, g)
		if err := g.Apply(tc.limits); !errors.Is(err, tc.want) {
			t.Errorf("%s %s: %v, want %v", tc.layout, tc.name, err, tc.want)
		}
		if diff := cmp.Diff(before, contents(t, g)); diff != "" {
			t.Errorf("%s %s: changed:\n%s", tc.layout, tc.name, diff)
		}
	}
}

func TestApplyWithoutAControllerIsFineWhenNoLimitIsWanted(t *testing.T) {
	g := fakeV2(t)
	for _, f := range []string{"memory.max", "cpu.max", "pids.max"} {
		if err := os.Remove(g.Unified() + "/" + f); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Apply(Limits{DiskBytes: 1 << 30}); err != nil {
		t.Error(err)
	}
	if l, err := g.Read(); err != nil || !l.Equal(Limits{}) {
		t.Errorf("Read: %+v, %v", l, err)
	}
}

func TestApplyOnCgroup2ReclaimsBeforeItLimits(t *testing.T) {
	g := fakeV2(t)
	done := make(chan error, 1)
	go func() { // the kernel
		for range 5000 {
			if s, err := readText(g.Unified() + "/memory.high"); err == nil && s == "67108864" {
				done <- os.WriteFile(g.Unified()+"/memory.current", []byte("50000000"), 0o644)
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
		done <- errors.New("memory.high was never set")
	}()
	steps, err := g.planMemoryV2(g.Unified()+"/memory.max", Limits{MemoryBytes: 64 << 20}, true)
	if err != nil {
		t.Fatal(err)
	}
	put(t, g.Unified(), map[string]string{"memory.swap.current": "0"})
	squeeze := &steps[slices.IndexFunc(steps, func(s step) bool { return s.value == "67108864" })]
	check := squeeze.check
	squeeze.check = func() error { return errors.Join(<-done, check()) }
	if err := g.mounts.runSteps(steps); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"memory.max": "67108864", "memory.high": "max", "memory.swap.max": "0"} {
		if got := get(t, g.Unified()+"/"+file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

func TestUsageReadsBothLayouts(t *testing.T) {
	for name, fake := range fakes {
		got, err := fake(t).Usage()
		if err != nil {
			t.Fatal(err)
		}
		if got.Life == "" || time.Since(got.Time) > time.Minute {
			t.Errorf("%s: read at %v of life %q", name, got.Time, got.Life)
		}
		got.Life, got.Time = "", time.Time{}
		want := Usage{
			CPU: CPUUsage{Time: 1500 * time.Millisecond, Limit: 0, Periods: 40, Failures: 7, ThrottledTime: 3 * time.Second},
			Memory: MemoryUsage{
				Resource:   Resource{Held: 104857600, MaxHeld: 209715200, Limit: Unlimited, Failures: 11},
				CacheBytes: 62914560, HighHits: 4, OOMs: 3, OOMKills: 2,
			},
			Swap: Resource{Held: 4096, MaxHeld: 8192, Limit: Unlimited, Failures: 6},
			PIDs: Resource{Held: 12, MaxHeld: 31, Limit: Unlimited, Failures: 5},
			IO: []IOUsage{{
				Device: "999:0", ReadBytes: 8192, WriteBytes: 4096, Reads: 2, Writes: 1,
				Limit: IOLimit{Device: "999:0", ReadBPS: 1048576, WriteIOPS: 120},
			}},
			Pressure: Pressure{
				CPU: &Stall{Some: StallTime{Avg10: 1.5, Avg60: 0.25, Avg300: 0.05, Total: 2 * time.Millisecond}},
				IO:  &Stall{Some: StallTime{Total: 7 * time.Microsecond}, Full: StallTime{Avg10: 99.99, Total: 5 * time.Microsecond}},
			},
		}
		if name == "v1" {
			want.Memory.CacheBytes, want.Memory.HighHits, want.Memory.OOMs = 8192, 0, 0
			want.Swap.MaxHeld = want.Swap.Held // the kernel does not tell
			want.Pressure = Pressure{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestAGroupThatIsNotThereIsNotFound(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		g.name = "/ctctl-absent"
		if g.Exists() {
			t.Errorf("%s: exists", name)
		}
		_, readErr := g.Read()
		_, usageErr := g.Usage()
		for _, err := range []error{g.Apply(Limits{}), readErr, usageErr, g.Freeze(context.Background())} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
	}
}

func TestOnlyOwnNamesAreTaken(t *testing.T) {
	m := fakeV2(t).mounts
	for _, name := range []string{
		"", "/", "/ctctl-", "ctctl-1", "/ctctl-1/..", "/ctctl-../x", "/ctctl-A", "/ctctl-1/x", "/system.slice", "/ctctl-1\n", "//ctctl-1", "/ctctl_1",
	} {
		if _, err := openIn(m, name); !errors.Is(err, ErrBadName) {
			t.Errorf("%q: %v, want ErrBadName", name, err)
		}
	}
	var zero Group
	ctx := context.Background()
	_, pidsErr := zero.PIDs()
	for _, err := range []error{
		zero.Remove(ctx), zero.KillAll(ctx), zero.Freeze(ctx), zero.Thaw(), zero.Make(), zero.Add(1, ""),
		zero.Apply(Limits{}), zero.MakeTree(Tree{}, IDs{}), zero.Delegate(0, 0), pidsErr,
	} {
		if !errors.Is(err, ErrBadName) {
			t.Errorf("the zero Group: %v, want ErrBadName", err)
		}
	}
}

func TestRemoveNeverRemovesFiles(t *testing.T) {
	g := fakeV2(t)
	if err := g.Remove(context.Background()); err == nil || !exists(g.Unified()+"/memory.max") {
		t.Errorf("Remove of a plain directory with files: %v", err)
	}
}

func TestPIDsRefusesAProcessOutsideThePidNamespace(t *testing.T) {
	g := fakeV2(t)
	put(t, g.Unified(), map[string]string{"cgroup.procs": "0"})
	if pids, err := g.PIDs(); err == nil {
		t.Errorf("got %v", pids)
	}
	if err := g.KillAll(context.Background()); err == nil {
		t.Error("KillAll takes pid 0")
	}
}

func TestPIDsWalksSubCgroups(t *testing.T) {
	g := fakeV2(t)
	put(t, g.Unified(), map[string]string{"cgroup.procs": "30\n10", "a/cgroup.procs": "20", "a/b/cgroup.procs": "5\n5", "empty/x": ""})
	got, err := g.PIDs()
	if diff := cmp.Diff([]int{5, 10, 20, 30}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
