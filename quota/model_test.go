package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

// host is what the model has to know of where limits are applied.
type host struct {
	v1, disks, weight     bool   // cgroup version; io limits and io weight are there
	swap                  bool   // swap is accounted
	cpus                  int    // CPUs 0…n-1 are online
	memoryHeld, tasksHeld int64  // and cannot be reclaimed
	disk, name            string // a Device that is there, and what Read calls it
}

// random returns limits, most of them fine, and the error that one of them
// must lead to, or nil. It repeats no code of the package.
func (h host) random(r *rand.Rand) (Limits, []error) {
	var l Limits
	var wrong []error
	maybe := func(odds int) bool { return r.IntN(odds) == 0 }
	fault := func(cond bool, err error) {
		if cond {
			wrong = append(wrong, err)
		}
	}
	pick := func(n ...int64) int64 { return n[r.IntN(len(n))] }
	if maybe(2) {
		l.CPUs = float64(1+r.IntN(400)) / 100
		if maybe(20) {
			l.CPUs = []float64{-1, 0.001, 1e6}[r.IntN(3)]
			fault(true, ErrBadLimit)
		}
	}
	if maybe(2) {
		l.CPUWeight = pick(1, 2, 50, 99, 100, 101, 333, 9999, 10000)
		if maybe(20) {
			l.CPUWeight = pick(-1, 10001)
			fault(true, ErrBadLimit)
		}
	}
	if maybe(3) {
		first := r.IntN(h.cpus)
		l.CPUSet = fmt.Sprint(first)
		if last := first + r.IntN(h.cpus-first+1); last > first {
			l.CPUSet = fmt.Sprintf("%d-%d", first, last)
			fault(last >= h.cpus, ErrBadLimit)
		}
	}
	if maybe(2) {
		l.PIDs = h.tasksHeld + r.Int64N(1000)
		if h.tasksHeld > 1 && maybe(10) {
			l.PIDs = 1 + r.Int64N(h.tasksHeld-1)
			fault(true, ErrBelowUsage)
		}
	}
	wrong = append(wrong, h.randomMemory(r, &l)...)
	if maybe(3) {
		l.IOWeight = pick(1, 77, 100, 111, 1090, 10000)
		fault(!h.weight, ErrUnsupported)
	}
	if h.disk != "" && maybe(3) {
		l.IO = []IOLimit{{Device: h.disk, ReadBPS: 4096 + r.Int64N(1<<30), WriteIOPS: 1 + r.Int64N(1<<20)}}
		if maybe(4) {
			l.IO[0].Device = "/dev/no-such-disk"
			fault(true, ErrNoDevice)
		}
		fault(!h.disks, ErrUnsupported)
	}
	if maybe(5) {
		l.DiskBytes, l.DiskWarnPercent = 1<<30, 90
	}
	return l, wrong
}

func (h host) randomMemory(r *rand.Rand, l *Limits) (wrong []error) {
	if r.IntN(2) == 0 {
		l.MemoryBytes = max(MinMemoryBytes, h.memoryHeld) + 1<<20 + r.Int64N(1<<34)
		switch r.IntN(3) {
		case 0:
			l.SwapBytes = UnlimitedSwap
		case 1:
			l.SwapBytes = MinSwapBytes + r.Int64N(1<<30)
			if !h.swap {
				wrong = append(wrong, ErrUnsupported)
			}
		}
		if h.memoryHeld > 2*MinMemoryBytes && r.IntN(10) == 0 {
			l.MemoryBytes, l.SwapBytes = MinMemoryBytes+r.Int64N(h.memoryHeld-2*MinMemoryBytes), 0
			wrong = []error{ErrBelowUsage}
		}
	}
	if r.IntN(4) == 0 {
		l.MemoryHighBytes = max(MinMemoryBytes, h.memoryHeld) + r.Int64N(1<<33)
		if h.v1 {
			wrong = append(wrong, ErrUnsupported)
		}
	}
	if r.IntN(4) == 0 {
		l.MemoryMinBytes = MinMemoryBytes + r.Int64N(1<<33)
		if h.v1 {
			wrong = append(wrong, ErrUnsupported)
		}
	}
	most := func(n, than int64) bool { return n > 0 && than > 0 && n > than }
	if most(l.MemoryHighBytes, l.MemoryBytes) || most(l.MemoryMinBytes, l.MemoryBytes) || most(l.MemoryMinBytes, l.MemoryHighBytes) {
		wrong = append(wrong, ErrBadLimit)
	}
	return wrong
}

// model is what the kernel should hold after l, rounded.
func (h host) model(l Limits) Limits {
	page := func(n int64) int64 { return n / 4096 * 4096 }
	l = l.Clone()
	l.MemoryBytes, l.MemoryHighBytes, l.MemoryMinBytes = page(l.MemoryBytes), page(l.MemoryHighBytes), page(l.MemoryMinBytes)
	if l.SwapBytes > 0 {
		l.SwapBytes = page(l.SwapBytes)
	}
	if l.MemoryBytes == 0 {
		l.SwapBytes = 0
	}
	if h.cpus == 1 || l.CPUSet == fmt.Sprintf("0-%d", h.cpus-1) {
		l.CPUSet = ""
	}
	if h.v1 && l.IOWeight > 100 { // BFQ's range is smaller
		l.IOWeight = 100 + (l.IOWeight-100)/11*11
	}
	if l.CPUWeight == 100 {
		l.CPUWeight = 0
	}
	if l.IOWeight == 100 {
		l.IOWeight = 0
	}
	l.DiskBytes, l.DiskWarnPercent = 0, 0
	return l
}

// agree applies random limits n times; the group and the model must agree after
// each.
func (h host) agree(t *testing.T, g Group, n int, unchanged func() func() string) (refused int) {
	t.Helper()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	now := Limits{}
	if err := g.Apply(now); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		l, wrong := h.random(r)
		compare := unchanged()
		err := g.Apply(l)
		where := fmt.Sprintf("seed %d, number %d: %s", seed, i, l)
		switch {
		case err == nil && len(wrong) > 0:
			t.Fatalf("%s: taken, want one of %v", where, wrong)
		case err != nil && !matches(err, wrong):
			t.Fatalf("%s: %v, want one of %v", where, err, wrong)
		case err != nil:
			refused++
			if diff := compare(); diff != "" {
				t.Fatalf("%s: refused (%v) and changed:\n%s", where, err, diff)
			}
		default:
			now = h.model(l)
			for k := range now.IO {
				now.IO[k].Device = h.name
			}
		}
		got, err := g.Read()
		if diff := cmp.Diff(now, got); err != nil || diff != "" {
			t.Fatalf("%s: %v, model against kernel:\n%s", where, err, diff)
		}
		if len(wrong) == 0 {
			if diff, err := g.Compare(l); err != nil || len(diff) > 0 {
				t.Fatalf("%s: Compare: %v, %v", where, diff, err)
			}
		}
	}
	return refused
}

func matches(err error, any []error) bool {
	for _, e := range any {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func TestRandomLimitsAgreeWithAModelOnFakeHosts(t *testing.T) {
	for name, fake := range fakes {
		g := fake(t)
		h := host{
			v1: name == "v1", disks: true, weight: true, swap: true, cpus: 8,
			memoryHeld: 104861696, tasksHeld: 12, disk: "/dev/fake0p1", name: "999:0",
		}
		refused := h.agree(t, g, 600, func() func() string {
			before := contents(t, g)
			return func() string { return cmp.Diff(before, contents(t, g)) }
		})
		if refused < 60 || refused > 540 {
			t.Errorf("%s: %d of 600 were refused: the mix is bad", name, refused)
		}
	}
}

func TestRandomLimitsAgreeWithAModelOnThisHost(t *testing.T) {
	g := limitedGroup(t)
	_, v1 := g.dirOf("memory")
	has := func(k knob) bool {
		_, _, ok, err := g.find(k, false)
		return ok && err == nil
	}
	online, err := g.hostCPUs()
	if err != nil {
		t.Fatal(err)
	}
	h := host{v1: v1, disks: has(throttle), weight: has(ioWeight) || has(ioWeightBFQ), swap: has(swapMax), cpus: len(online)}
	if numbers, err := disksOf(testutil.TempDir(t)); err == nil {
		h.disk, h.name = deviceName(numbers[0]), deviceName(numbers[0])
	}
	t.Logf("%+v", h)
	h.agree(t, g, 100, func() func() string {
		before, err := g.Read()
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			after, err := g.Read()
			if err != nil {
				t.Fatal(err)
			}
			return cmp.Diff(before, after)
		}
	})
}

func TestAWriteThatFailsIsUndoneWithAllBeforeIt(t *testing.T) {
	first := Limits{CPUs: 1, CPUWeight: 50, CPUSet: "1-2", MemoryBytes: 1 << 30, PIDs: 50, IOWeight: 50, IO: []IOLimit{{Device: "/dev/fake0", ReadBPS: 1 << 20}}}
	second := Limits{CPUs: 2, CPUWeight: 70, CPUSet: "3", MemoryBytes: 4 << 30, SwapBytes: 1 << 30, PIDs: 500, IOWeight: 70, IO: []IOLimit{
		{Device: "/dev/fake1", WriteBPS: 1 << 20}, {Device: "/dev/fake0", ReadIOPS: 100},
	}}
	third := Limits{MemoryBytes: 256 << 20, PIDs: 20}
	for name, fake := range fakes {
		for _, l := range []Limits{second, third, {}} {
			failed := 0
			for n := range 100 {
				g := fake(t)
				if err := g.Apply(first); err != nil {
					t.Fatal(err)
				}
				before, calls := contents(t, g), 0
				g.mounts.write = func(path, value string) error {
					if filepath.Base(path) == "cgroup.subtree_control" {
						return nil // a controller stays enabled, and does no harm
					}
					if calls++; calls == n+1 {
						return unix.EIO
					}
					return fakeWrite(path, value)
				}
				err := g.Apply(l)
				if err == nil {
					break
				}
				failed++
				if !errors.Is(err, unix.EIO) {
					t.Errorf("%s: write %d: %v", name, n, err)
				}
				if diff := cmp.Diff(before, contents(t, g)); diff != "" {
					t.Errorf("%s: write %d failed and was not undone:\n%s", name, n, diff)
				}
			}
			if failed < 6 {
				t.Errorf("%s: only %d writes for %s", name, failed, l)
			}
		}
	}
}
