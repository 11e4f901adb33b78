package quota

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// reading is one in which every counter is n.
func reading(life string, at time.Duration, n int64) Usage {
	d := time.Duration(n)
	stall := func() *Stall {
		return &Stall{Some: StallTime{Avg10: float64(n), Total: d}, Full: StallTime{Total: d}}
	}
	r := Resource{Held: 10 * n, MaxHeld: 20 * n, Limit: 100, Failures: n}
	return Usage{
		Time: time.Unix(1000, 0).Add(at).UTC(), Life: life,
		CPU:    CPUUsage{Time: d, Limit: 2, Periods: n, Failures: n, ThrottledTime: d},
		Memory: MemoryUsage{Resource: r, CacheBytes: n, HighHits: n, OOMs: n, OOMKills: n},
		Swap:   r, PIDs: r,
		IO: []IOUsage{{
			Device: "/dev/vda", ReadBytes: n, WriteBytes: n, Reads: n, Writes: n, Failures: n, Limit: IOLimit{Device: "/dev/vda", ReadBPS: 1 << 40},
		}},
		Pressure: Pressure{CPU: stall(), Memory: stall(), IO: stall()},
	}
}

// withCounters replaces all counters of u by n, leaving what is held.
func withCounters(u Usage, n int64) Usage {
	c := reading("", 0, n)
	c.Time, c.Life, c.CPU.Limit, c.Memory.CacheBytes = u.Time, u.Life, u.CPU.Limit, u.Memory.CacheBytes
	for _, r := range [...]struct{ to, from *Resource }{{&c.Memory.Resource, &u.Memory.Resource}, {&c.Swap, &u.Swap}, {&c.PIDs, &u.PIDs}} {
		r.to.Held, r.to.MaxHeld, r.to.Limit = r.from.Held, r.from.MaxHeld, r.from.Limit
	}
	for _, s := range [...]struct{ to, from *Stall }{
		{c.Pressure.CPU, u.Pressure.CPU},
		{c.Pressure.Memory, u.Pressure.Memory},
		{c.Pressure.IO, u.Pressure.IO},
	} {
		s.to.Some.Avg10 = s.from.Some.Avg10
	}
	return c
}

func TestATallyGoesOnOverRestarts(t *testing.T) {
	var tally Tally
	for _, u := range []Usage{
		reading("a", 0, 5), reading("a", time.Minute, 9),
		reading("b", 2*time.Minute, 1), reading("b", 3*time.Minute, 2),
		reading("c", 0, 4), // the clock was set back
	} {
		tally = tally.Count(u)
		b, err := json.Marshal(tally)
		var kept Tally
		if err := errors.Join(err, json.Unmarshal(b, &kept)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tally, kept); diff != "" {
			t.Errorf("kept as JSON: %s", diff)
		}
		tally = kept
	}
	want := withCounters(reading("c", 0, 4), 9+2+4)
	want.Memory.MaxHeld, want.Swap.MaxHeld, want.PIDs.MaxHeld = 180, 180, 180
	if diff := cmp.Diff(want, tally.Total()); diff != "" {
		t.Error(diff)
	}
}

func TestAnOlderReadingOfTheSameLifeChangesNothing(t *testing.T) {
	tally := Tally{}.Count(reading("a", 0, 1)).Count(reading("a", time.Minute, 9))
	if diff := cmp.Diff(tally, tally.Count(reading("a", 30*time.Second, 5))); diff != "" {
		t.Error(diff)
	}
}

func TestAReadingOfACgroupThatWasBeingRemovedTakesNothingAway(t *testing.T) {
	tally := Tally{}.Count(reading("a", 0, 5))
	half := Usage{Life: "a", Time: time.Unix(2000, 0), CPU: CPUUsage{Time: 6}, Missing: []string{"memory"}}
	tally = tally.Count(half).Count(reading("b", 2*time.Minute, 1))
	want := withCounters(tally.Last, 5+1)
	want.CPU.Time = 6 + 1
	want.Memory.MaxHeld, want.Swap.MaxHeld, want.PIDs.MaxHeld = 100, 100, 100
	if diff := cmp.Diff(want, tally.Total()); diff != "" {
		t.Error(diff)
	}
}

func TestAReadingAtALimitOfADiskIsCounted(t *testing.T) {
	at := func(seconds int, bytes, writes int64) Usage {
		return Usage{Life: "a", Time: time.Unix(int64(seconds), 0), CPU: CPUUsage{Time: time.Duration(seconds)}, IO: []IOUsage{
			{Device: "/dev/vda", ReadBytes: bytes, Writes: writes, Limit: IOLimit{Device: "/dev/vda", ReadBPS: 1000, WriteIOPS: 10}},
			{Device: "/dev/vdb", ReadBytes: bytes, Writes: writes},
		}}
	}
	var tally Tally
	for _, step := range []struct {
		u    Usage
		want int64
	}{
		{at(0, 5000, 0), 0},    // the first
		{at(10, 13000, 0), 0},  // 800 B/s
		{at(20, 22000, 0), 1},  // 900 B/s
		{at(30, 22000, 89), 1}, // 8.9 iops
		{at(40, 22000, 189), 2},
		{at(50, 32000, 289), 3}, // at both
		{Usage{Life: "b", Time: time.Unix(60, 0)}, 3},
	} {
		tally = tally.Count(step.u)
		if got := find(tally.Total().IO, "/dev/vda").Failures; got != step.want {
			t.Errorf("at %v: %d, want %d", step.u.Time.Unix(), got, step.want)
		}
		if got := find(tally.Total().IO, "/dev/vdb").Failures; got != 0 {
			t.Errorf("a disk without limits has %d", got)
		}
	}
	if d := find(tally.Total().IO, "/dev/vda"); d.ReadBytes != 32000 || d.Writes != 289 {
		t.Errorf("after a restart without io: %+v", d)
	}
}

func TestSinceIsWhatGrew(t *testing.T) {
	base, now := reading("a", 0, 5), reading("b", time.Minute, 12)
	before := reading("a", 0, 5)
	if diff := cmp.Diff(withCounters(now, 7), now.Since(base)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(now, now.Since(Usage{})); diff != "" {
		t.Errorf("since nothing: %s", diff)
	}
	if diff := cmp.Diff(withCounters(base, 5), base.Since(now)); diff != "" {
		t.Errorf("counters that began anew: %s", diff)
	}
	if diff := cmp.Diff(before, base); diff != "" {
		t.Errorf("the base was changed: %s", diff)
	}
}

func TestAPressureThatOnlyOneSideKnows(t *testing.T) {
	with, without := reading("a", 0, 5), reading("a", 0, 5)
	without.Pressure = Pressure{}
	if got := without.Add(with).Pressure.IO; got == nil || got.Some.Total != 5 || got.Some.Avg10 != 0 {
		t.Errorf("added: %+v", got)
	}
	if got := without.Since(with).Pressure.IO; got == nil || got.Some.Total != 0 {
		t.Errorf("since: %+v", got)
	}
	if got := without.Add(without).Pressure.IO; got != nil {
		t.Errorf("neither: %+v", got)
	}
}

func TestRatesAreOfOneLife(t *testing.T) {
	a := Usage{Life: "a", Time: time.Unix(0, 0), CPU: CPUUsage{Time: time.Second, Periods: 10, Failures: 5}, IO: []IOUsage{{Device: "x", ReadBytes: 100}}}
	b := Usage{Life: "a", Time: time.Unix(2, 0), CPU: CPUUsage{Time: 4 * time.Second, Periods: 30, Failures: 10}, IO: []IOUsage{
		{Device: "x", ReadBytes: 300, Writes: 8}, {Device: "y", WriteBytes: 50, Reads: 2},
	}, Pressure: Pressure{IO: &Stall{Some: StallTime{Total: 500 * time.Millisecond}}}}
	want := Rates{Interval: 2 * time.Second, CPUs: 1.5, Throttled: 25, ReadBPS: 100, WriteBPS: 25, ReadIOPS: 1, WriteIOPS: 4, IOPressure: 25}
	got, ok := b.Rates(a)
	if diff := cmp.Diff(want, got); !ok || diff != "" {
		t.Errorf("%v %s", ok, diff)
	}
	b.Life = "b"
	if _, ok := b.Rates(a); ok {
		t.Error("rates over two lives")
	}
	if _, ok := a.Rates(a); ok {
		t.Error("rates over no time")
	}
}

func TestStallsAreReadAndGarbageIsNot(t *testing.T) {
	for _, s := range []string{"some avg10=x", "some total=1.5", "full avg300="} {
		if got, err := parseStall(s); err == nil {
			t.Errorf("%q is taken as %+v", s, got)
		}
	}
	got, err := parseStall("some avg10=0.12 avg60=3 avg300=100.00 total=1234567\n\nfull avg10=0.00 new=7 total=1")
	want := &Stall{Some: StallTime{0.12, 3, 100, 1234567 * time.Microsecond}, Full: StallTime{Total: time.Microsecond}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}
