package quota

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestEveryLimitIsWrittenAsTheKernelWantsIt(t *testing.T) {
	l := Limits{
		CPUs: 1.5, CPUWeight: 250, CPUSet: "0-3,6", PIDs: 100, IOWeight: 1200,
		MemoryBytes: 512 << 20, SwapBytes: 1 << 30,
		IO: []IOLimit{{Device: "/dev/fake1", ReadBPS: 10 << 20, WriteIOPS: 2000}},
	}
	want := map[string]map[string]string{
		"v2": {
			"cpu.max": "150000 100000", "cpu.weight": "250", "cpuset.cpus": "0-3,6", "pids.max": "100",
			"io.weight": "default 1200\n999:0 50", "io.max": "999:1 rbps=10485760 wbps=max riops=max wiops=2000",
			"memory.max": "536870912", "memory.swap.max": "1073741824", "memory.high": "314572800", "memory.min": "209715200",
		},
		"v1": {
			"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000", "cpu.shares": "2560", "cpuset.cpus": "0-3,6", "cpuset.mems": "0",
			"pids.max": "100", "memory.limit_in_bytes": "536870912", "memory.memsw.limit_in_bytes": "1610616832",
			"blkio.bfq.weight": "200", throttleFiles[0]: "999:1 10485760", throttleFiles[1]: "", throttleFiles[2]: "", throttleFiles[3]: "999:1 2000",
		},
	}
	for name, fake := range fakes {
		g, l := fake(t), l
		if name == "v2" {
			l.MemoryHighBytes, l.MemoryMinBytes = 300<<20, 200<<20
		}
		if err := g.Apply(l); err != nil {
			t.Fatal(err)
		}
		for file, text := range want[name] {
			dir, _ := g.dirOf(strings.Replace(strings.SplitN(file, ".", 2)[0], "blkio", "io", 1))
			if got := get(t, dir+"/"+file); got != text {
				t.Errorf("%s: %s is %q, want %q", name, file, got, text)
			}
		}
	}
}

func TestWhatAVersionOrAHostLacksIsSaidAndNothingIsChanged(t *testing.T) {
	for _, tc := range []struct {
		layout, spoil string
		limits        Limits
		want          UnsupportedError
	}{
		{"v1", "", Limits{CPUs: 1, MemoryHighBytes: 1 << 30}, UnsupportedError{Limit: "memory-high", Controller: "memory", Version: "v1"}},
		{"v1", "", Limits{CPUs: 1, MemoryMinBytes: 1 << 30}, UnsupportedError{Limit: "memory-min", Controller: "memory", Version: "v1"}},
		{"v1", "blkio.bfq.weight", Limits{CPUs: 1, IOWeight: 50}, UnsupportedError{Limit: "io-weight", Controller: "io", Version: "v1"}},
		{"v1", throttleFiles[0], Limits{CPUs: 1, IO: []IOLimit{{Device: "/dev/fake0", ReadBPS: 1 << 20}}}, UnsupportedError{Limit: "io", Controller: "io", Version: "v1"}},
		{"v1", "memory.memsw.limit_in_bytes", Limits{CPUs: 1, MemoryBytes: 1 << 30, SwapBytes: 1 << 30}, UnsupportedError{Limit: "swap", Controller: "memory", Version: "v1"}},
		{"v1", "cpu.shares", Limits{PIDs: 50, CPUWeight: 50}, UnsupportedError{Limit: "cpu-weight", Controller: "cpu", Version: "v1"}},
		{"v2", "memory.min", Limits{CPUs: 1, MemoryMinBytes: 1 << 30}, UnsupportedError{Limit: "memory-min", Controller: "memory", Version: "v2"}},
		{"v2", "memory.swap.max", Limits{CPUs: 1, MemoryBytes: 1 << 30, SwapBytes: 1 << 30}, UnsupportedError{Limit: "swap", Controller: "memory", Version: "v2"}},
		{"v2", "cpuset.cpus", Limits{CPUs: 1, CPUSet: "0"}, UnsupportedError{Limit: "cpuset", Controller: "cpuset", Version: "v2"}},
		{"v2", "io.max", Limits{CPUs: 1, IO: []IOLimit{{Device: "/dev/fake0", ReadBPS: 1 << 20}}}, UnsupportedError{Limit: "io", Controller: "io", Version: "v2"}},
		{"v2", "io.weight", Limits{CPUs: 1, IOWeight: 50}, UnsupportedError{Limit: "io-weight", Controller: "io", Version: "v2"}},
		{"v2", "pids.max", Limits{CPUs: 1, PIDs: 50}, UnsupportedError{Limit: "pids", Controller: "pids", Version: "v2"}},
	} {
		g := fakes[tc.layout](t)
		if tc.spoil != "" {
			dir, _ := g.dirOf(strings.Replace(strings.SplitN(tc.spoil, ".", 2)[0], "blkio", "io", 1))
			if err := os.Remove(dir + "/" + tc.spoil); err != nil {
				t.Fatal(err)
			}
		}
		before := contents(t, g)
		err := g.Apply(tc.limits)
		var got *UnsupportedError
		if !errors.As(err, &got) || !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s without %q: %v", tc.layout, tc.spoil, err)
			continue
		}
		t.Log(err)
		if got.Why == "" || got.Cure == "" {
			t.Errorf("no reason or no cure: %v", err)
		}
		if diff := cmp.Diff(tc.want, UnsupportedError{Limit: got.Limit, Controller: got.Controller, Version: got.Version}); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(before, contents(t, g)); diff != "" {
			t.Errorf("changed:\n%s", diff)
		}
	}
}

// The fake kernel refuses a limit of memory above that of memory and swap.
func TestMemoryAndSwapOfV1GoUpAndDownInEveryOrder(t *testing.T) {
	states := []Limits{
		{},
		{MemoryBytes: 256 << 20},
		{MemoryBytes: 256 << 20, SwapBytes: 4 << 30},
		{MemoryBytes: 256 << 20, SwapBytes: UnlimitedSwap},
		{MemoryBytes: 1 << 30},
		{MemoryBytes: 1 << 30, SwapBytes: 64 << 20},
		{MemoryBytes: 8 << 30, SwapBytes: 64 << 20},
		{MemoryBytes: 8<<30 + 1, SwapBytes: 64<<20 + 4095},
	}
	g := fakeV1(t)
	for _, from := range states {
		for _, to := range states {
			for _, l := range []Limits{from, to} {
				if err := g.Apply(l); err != nil {
					t.Fatalf("from %s to %s: %v", from, to, err)
				}
				if diff, err := g.Compare(l); err != nil || len(diff) > 0 {
					t.Errorf("from %s to %s: %v, %v", from, to, diff, err)
				}
			}
		}
	}
}

func TestSwappinessStandsInForALimitOfSwapThatIsNotAccounted(t *testing.T) {
	g := fakeV1(t)
	dir, _ := g.dirOf("memory")
	for _, f := range []string{"limit_in_bytes", "usage_in_bytes", "failcnt"} {
		if err := os.Remove(dir + "/memory.memsw." + f); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		limits     Limits
		swappiness string
	}{
		{Limits{MemoryBytes: 1 << 30}, "0"},
		{Limits{MemoryBytes: 1 << 30, SwapBytes: UnlimitedSwap}, "60"},
		{Limits{MemoryBytes: 2 << 30}, "0"},
		{Limits{}, "60"},
	} {
		if err := g.Apply(tc.limits); err != nil {
			t.Fatal(err)
		}
		if got := get(t, dir+"/memory.swappiness"); got != tc.swappiness {
			t.Errorf("%s: swappiness %s, want %s", tc.limits, got, tc.swappiness)
		}
		if diff, err := g.Compare(tc.limits); err != nil || len(diff) > 0 {
			t.Errorf("%s: %v, %v", tc.limits, diff, err)
		}
	}
	if notes := g.Notes(Limits{MemoryBytes: 1 << 30}); len(notes) != 1 || !strings.Contains(notes[0], "swap") {
		t.Errorf("notes: %q", notes)
	}
	if u, err := g.Usage(); err != nil || !cmp.Equal(u.Missing, []string{"swap"}) {
		t.Errorf("missing %v, %v", u.Missing, err)
	}
}

func TestALimitOfMemoryCountsWhatIsSwappedOutToo(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		put(t, g.mounts.unified, nil)
		dir, v1 := g.dirOf("memory")
		if v1 {
			put(t, dir, map[string]string{"memory.memsw.usage_in_bytes": "1178599424", "memory.stat": "total_swap 1073741824"})
		} else {
			put(t, dir, map[string]string{"memory.swap.current": "1073741824"})
		}
		before := contents(t, g)
		for _, l := range []Limits{{MemoryBytes: 256 << 20}, {MemoryBytes: 256 << 20, SwapBytes: 512 << 20}} {
			err := g.Apply(l)
			if !errors.Is(err, ErrBelowUsage) || !strings.Contains(err.Error(), "1024 MiB") {
				t.Errorf("%s: %s: %v", name, l, err)
			}
			if diff := cmp.Diff(before, contents(t, g)); diff != "" {
				t.Errorf("%s: changed:\n%s", name, diff)
			}
		}
		for _, l := range []Limits{{MemoryBytes: 256 << 20, SwapBytes: 1 << 30}, {MemoryBytes: 256 << 20, SwapBytes: UnlimitedSwap}, {MemoryBytes: 2 << 30}} {
			if err := g.Apply(l); err != nil {
				t.Errorf("%s: %s: %v", name, l, err)
			}
		}
		same := Limits{MemoryBytes: 2 << 30, SwapBytes: 1 << 20}
		if err := g.Apply(same); err != nil {
			t.Error(err)
		}
		put(t, dir, map[string]string{"memory.swap.current": "2147483648", "memory.memsw.usage_in_bytes": "2252341248"})
		same.SwapBytes = 0 // with the same limit of memory
		if err := g.Apply(same); !errors.Is(err, ErrBelowUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHighMemoryBelowWhatIsHeldIsRefused(t *testing.T) {
	g := fakeV2(t)
	before := contents(t, g)
	err := g.Apply(Limits{MemoryHighBytes: 64 << 20})
	if !errors.Is(err, ErrBelowUsage) || !strings.Contains(err.Error(), "100 MiB in use") || !strings.Contains(err.Error(), "at least 101M") {
		t.Error(err)
	}
	if diff := cmp.Diff(before, contents(t, g)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	if err := g.Apply(Limits{MemoryHighBytes: 95 << 20}); err != nil {
		t.Errorf("a little below: %v", err)
	}
}

// A container may have come to be above a limit, and others can still be changed.
func TestALimitThatIsInForceAlreadyIsNotRefused(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		l := Limits{PIDs: 100}
		if name == "v2" {
			l.MemoryHighBytes = 200 << 20
		}
		if err := g.Apply(l); err != nil {
			t.Fatal(err)
		}
		pids, _ := g.dirOf("pids")
		memory, _ := g.dirOf("memory")
		put(t, pids, map[string]string{"pids.current": "101"})
		put(t, memory, map[string]string{"memory.current": "314572800"})
		l.CPUs = 1
		if err := g.Apply(l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		l.PIDs = 99
		if err := g.Apply(l); !errors.Is(err, ErrBelowUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// With memory.high at the new limit by chance, usage must still be looked at.
func TestALimitOfMemoryIsCheckedWhereHighMemoryIsTheSameAlready(t *testing.T) {
	g := fakeV2(t)
	put(t, g.Unified(), map[string]string{"memory.high": "67108864"})
	before := contents(t, g)
	if err := g.Apply(Limits{MemoryBytes: 64 << 20, MemoryHighBytes: 64 << 20}); !errors.Is(err, ErrBelowUsage) {
		t.Error(err)
	}
	if diff := cmp.Diff(before, contents(t, g)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
}

func TestTheDeviceOfAnIOLimitIsFoundOrNamedAsUnknown(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		pool := g.WithPool("/fake/pool")
		limit := func(devices ...string) Limits {
			var l Limits
			for _, d := range devices {
				l.IO = append(l.IO, IOLimit{Device: d, ReadIOPS: 100})
			}
			return l
		}
		for _, l := range []Limits{limit("/dev/nothing"), limit(Pool)} {
			err := g.Apply(l)
			if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), l.IO[0].Device) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, l := range []Limits{limit("/dev/fake0", "/dev/fake0p1"), limit(Pool, "/dev/fake1")} {
			err := pool.Apply(l)
			if !errors.Is(err, ErrBadLimit) || !strings.Contains(err.Error(), "keep one") {
				t.Errorf("%s: %s: %v", name, l, err)
			}
		}
		if err := pool.Apply(limit(Pool)); err != nil {
			t.Fatal(err)
		}
		got, err := pool.Read()
		want := []IOLimit{{Device: "999:0", ReadIOPS: 100}, {Device: "999:1", ReadIOPS: 100}}
		if diff := cmp.Diff(want, got.IO); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		diff, err := pool.Compare(limit("/dev/fake0p1"))
		wrong := []Difference{{Name: "io-read 999:1", Want: "", Have: "100iops"}}
		if d := cmp.Diff(wrong, diff); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
		g.mounts.disks = func(string) ([]string, error) { return []string{"998:0"}, nil }
		if err := g.Apply(limit("/dev/fake0")); !errors.Is(err, ErrNoDevice) {
			t.Errorf("%s: a disk that the kernel does not limit: %v", name, err)
		}
		if err := pool.Apply(Limits{}); err != nil {
			t.Fatal(err)
		}
		if got, err := pool.Read(); err != nil || got.IO != nil {
			t.Errorf("%s: after taking it away: %+v, %v", name, got.IO, err)
		}
	}
}

func TestCPUsThatAreNotOnlineAreRefused(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		err := g.Apply(Limits{CPUSet: "0,7-9"})
		if !errors.Is(err, ErrBadLimit) || !strings.Contains(err.Error(), "CPU 8-9 is not online here; this host has 0-7") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACPUSetThatTheKernelDoesNotEmptyIsAllCPUs(t *testing.T) {
	g := fakeV2(t)
	put(t, g.Unified(), map[string]string{"cpuset.cpus": ""})
	for _, l := range []Limits{{}, {CPUSet: "0"}, {}} {
		if err := g.Apply(l); err != nil {
			t.Fatal(err)
		}
		if got, err := g.Read(); err != nil || got.CPUSet != l.CPUSet {
			t.Errorf("%s: read %q, %v", l, got.CPUSet, err)
		}
	}
	if got := get(t, g.Unified()+"/cpuset.cpus"); got != "0-7" {
		t.Errorf("cpuset.cpus is %q", got)
	}
	put(t, g.Unified(), map[string]string{"cpuset.cpus": ""})
	err := g.Apply(Limits{CPUSet: "0", MemoryBytes: 64 << 20}) // below usage
	if got := get(t, g.Unified()+"/cpuset.cpus"); !errors.Is(err, ErrBelowUsage) || errors.Is(err, unix.ENOSPC) || got != "0-7" {
		t.Errorf("undone: %q, %v", got, err)
	}
}

// The kernel's own conversion: 1024 shares are the weight 100.
func TestAWeightKeepsItsProportionInV1(t *testing.T) {
	for weight, shares := range map[int64]int64{1: 10, 2: 20, 50: 512, 99: 1014, 100: 1024, 200: 2048, 10000: 102400} {
		if got := toShares(weight); got != shares {
			t.Errorf("weight %d is %d shares, want %d", weight, got, shares)
		}
	}
	for w := int64(1); w <= MaxWeight; w++ {
		if got := fromShares(toShares(w)); got != w {
			t.Errorf("weight %d comes back as %d", w, got)
		}
		if b := bfqWeight(w); b < 1 || b > 1000 || bfqWeight(fromBFQ(b)) != b || w <= 100 && b != w {
			t.Errorf("io weight %d is %d of BFQ, which is %d", w, b, bfqWeight(fromBFQ(b)))
		}
	}
}

func TestNotesSayWhatHoldsInPart(t *testing.T) {
	v1, v2 := fakeV1(t), fakeV2(t)
	write := Limits{IO: []IOLimit{{Device: "/dev/fake0", WriteBPS: 1 << 20}}}
	read := Limits{IO: []IOLimit{{Device: "/dev/fake0", ReadBPS: 1 << 20}}}
	for _, tc := range []struct {
		name   string
		group  Group
		limits Limits
		want   string // "" is no note
	}{
		{"nothing", v1, Limits{}, ""},
		{"reads", v1, read, ""},
		{"writes", v1, write, "written back"},
		{"writes", v2, write, ""},
		{"many CPUs", v2, Limits{CPUs: 9}, "more than this host has: 8"},
		{"all CPUs", v2, Limits{CPUs: 8}, ""},
	} {
		got := strings.Join(tc.group.Notes(tc.limits), "\n")
		if !strings.Contains(strings.ReplaceAll(got, "writes back", "written back"), tc.want) || tc.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	put(t, v2.mounts.unified, map[string]string{"io.cost.qos": "999:0 enable=1 ctrl=auto"})
	if notes := v2.Notes(Limits{IOWeight: 50}); len(notes) != 0 {
		t.Errorf("with io.cost: %q", notes)
	}
}
