package container

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

var dawn = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

func (l *ledger) copy(t *testing.T) *ledger {
	t.Helper()
	b, err := usageSchema.Encode(l)
	if err != nil {
		t.Fatal(err)
	}
	out := new(ledger)
	if err := usageSchema.Decode(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// refused is a reading of a cgroup that has refused n forks.
func refused(life string, at time.Time, n int64) reading {
	return reading{group: &quota.Usage{Time: at, Life: life, PIDs: quota.Resource{Failures: n}}}
}

const forks = ResourcePIDs + failures

func TestTheLivesOfAContainerAreAddedUp(t *testing.T) {
	var l ledger
	at := dawn
	for _, r := range []struct {
		life string
		n    int64
	}{{"a", 0}, {"a", 2}, {"a", 3}, {"b", 1}, {"b", 1}, {"b", 4}, {"c", 0}} {
		l.take(at, refused(r.life, at, r.n))
		at = at.Add(time.Minute)
	}
	if got := l.total()[forks]; got != 3+4 {
		t.Errorf("got %d, want 7", got)
	}
}

// A writer that is killed leaves the ledger as it was last saved. Whoever goes on
// counts what the cgroup says, so that only what a cgroup counted after the last
// save and before its end is lost.
func TestAKilledWriterLosesAtMostWhatWasNotSavedAndCountsNothingTwice(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		saved := &ledger{}
		live := saved.copy(t)
		at, life, real, lost := dawn, 0, int64(0), int64(0)
		group, unsaved := int64(0), int64(0) // of the present cgroup
		look := func(l *ledger) { l.take(at, refused(string(rune('A'+life)), at, group)) }
		for range 200 {
			at = at.Add(time.Duration(1+rng.IntN(120)) * time.Second)
			switch rng.IntN(6) {
			case 0, 1: // it uses something
				n := rng.Int64N(10)
				real, group, unsaved = real+n, group+n, unsaved+n
			case 2: // looked at, and saved
				look(live)
				saved, unsaved = live.copy(t), 0
			case 3: // looked at by a command, which saves nothing
				look(saved.copy(t))
			case 4: // the supervisor is killed, and another one goes on
				live = saved.copy(t)
			case 5: // the cgroup goes: with or without its end having been seen
				if rng.IntN(2) == 0 {
					look(live)
					live.mark()
					saved, unsaved = live.copy(t), 0
				} else {
					live = saved.copy(t)
				}
				lost += unsaved
				life, group, unsaved = life+1, 0, 0
			}
		}
		look(live)
		if got := live.total()[forks]; got != real-lost {
			t.Fatalf("seed %d: counted %d, used %d of which %d can't be known", seed, got, real, lost)
		}
	}
}

func TestPeaksAreTheHighestEverWhoeverSawThem(t *testing.T) {
	var l ledger
	take := func(minute int, life string, held, most int64) {
		at := dawn.Add(time.Duration(minute) * time.Minute)
		u := quota.Usage{Time: at, Life: life}
		u.Memory.Held, u.Memory.MaxHeld = held, most
		l.take(at, reading{group: &u})
	}
	take(0, "a", 10, 50) // before it was first looked at it held 50
	take(6, "a", 20, 50)
	take(12, "a", 20, 60) // 60 in between
	take(18, "b", 5, 7)
	take(24, "b", 40, 40)
	take(30, "c", 5, 7) // 7 before it was first looked at
	for since, want := range map[int]int64{-1: 60, 0: 60, 7: 60, 13: 40, 19: 40, 25: 7} {
		if got := l.since(dawn.Add(time.Duration(since) * time.Minute)).peaks[ResourceMemory]; got != want {
			t.Errorf("from minute %d on: got %d, want %d", since, got, want)
		}
	}
	if got := l.since(time.Time{}).peaks[ResourceMemory]; got != 60 {
		t.Errorf("ever: got %d, want 60", got)
	}
}

func TestATimeWindowHasWhatWasUsedInIt(t *testing.T) {
	var l ledger
	n := int64(0)
	// Ten days, each minute something: a day's use is 1440.
	end := dawn.Add(10 * 24 * time.Hour)
	for at := dawn; !at.After(end); at = at.Add(time.Minute) {
		l.take(at, refused("a", at, n))
		n++
	}
	for _, tc := range []struct {
		back, latest time.Duration // how much longer than asked for the window may be
	}{
		{time.Minute, 5 * time.Minute},
		{30 * time.Minute, 5 * time.Minute},
		{59 * time.Minute, 5 * time.Minute},
		{2 * time.Hour, time.Hour},
		{24 * time.Hour, time.Hour},
		{7 * 24 * time.Hour, 24 * time.Hour},
		{9 * 24 * time.Hour, 24 * time.Hour},
		{100 * 24 * time.Hour, 0},
	} {
		w := l.since(end.Add(-tc.back))
		long := end.Sub(w.from)
		if tc.latest > 0 && (long < tc.back || long > tc.back+tc.latest) {
			t.Errorf("the last %v: answered for %v", tc.back, long)
		}
		if want := int64(long / time.Minute); w.totals[forks] != want {
			t.Errorf("the last %v: got %d in %v, want %d", tc.back, w.totals[forks], long, want)
		}
	}
	if got := len(l.Samples); got > 60 {
		t.Errorf("%d samples kept", got)
	}
}

func TestSamplesAreKeptForAMonthAndDoNotGrowWithoutEnd(t *testing.T) {
	var l ledger
	end := dawn.Add(100 * 24 * time.Hour)
	for at := dawn; at.Before(end); at = at.Add(5 * time.Minute) {
		l.take(at, refused("a", at, int64(at.Sub(dawn)/time.Minute)))
	}
	if got := len(l.Samples); got < 60 || got > 75 {
		t.Errorf("%d samples", got)
	}
	if age := l.At.Sub(l.Samples[0].At); age < 31*24*time.Hour || age > 33*24*time.Hour {
		t.Errorf("the oldest sample is %v old", age)
	}
	for i, s := range l.Samples[1:] {
		if !s.At.After(l.Samples[i].At) {
			t.Errorf("sample %d of %v follows one of %v", i+1, s.At, l.Samples[i].At)
		}
	}
}

func TestPeaksOutliveTheSamplesThatTheyWereIn(t *testing.T) {
	var l ledger
	for i := range 3 * 24 * 12 {
		at := dawn.Add(time.Duration(i) * sampleEvery)
		r := refused("a", at, 0)
		r.group.Memory.Held = 1
		if i == 30*12 {
			r.group.Memory.Held = 77
		}
		if i >= 30*12 {
			r.group.Memory.MaxHeld = 77
		}
		l.take(at, r)
	}
	if w := l.since(dawn.Add(25 * time.Hour)); w.peaks[ResourceMemory] != 77 || !w.from.After(dawn) {
		t.Errorf("got %d since %v, want 77", w.peaks[ResourceMemory], w.from)
	}
	if w := l.since(dawn.Add(time.Hour)); w.peaks[ResourceMemory] != 77 || !w.from.Equal(dawn) {
		t.Errorf("got %d since %v, want all there is", w.peaks[ResourceMemory], w.from)
	}
	if got := l.since(dawn.Add(48 * time.Hour)).peaks[ResourceMemory]; got != 1 {
		t.Errorf("two days later: got %d, want 1", got)
	}
}

func TestWhileAContainerIsStoppedAWindowBeginsWhenAskedFor(t *testing.T) {
	var l ledger
	take := func(at time.Time, life string, n int64) { l.take(at, refused(life, at, n)) }
	take(dawn, "a", 1)
	take(dawn.Add(time.Hour), "a", 5)
	l.mark() // its end
	again := dawn.Add(72 * time.Hour)
	take(again, "b", 0)
	l.mark()
	take(again.Add(time.Hour), "b", 2)
	asked := again.Add(-10 * time.Hour)
	w := l.since(asked)
	if !w.from.Equal(asked) || w.totals[forks] != 2 {
		t.Errorf("got %d since %v, want 2 since %v", w.totals[forks], w.from, asked)
	}
	if w := l.since(dawn.Add(-time.Hour)); !w.from.Equal(dawn) || w.totals[forks] != 7 {
		t.Errorf("all of it: got %d since %v", w.totals[forks], w.from)
	}
}

func TestAClockSetBackLosesNoFigures(t *testing.T) {
	var l ledger
	take := func(at time.Time, n, held int64) {
		r := refused("a", at, n)
		r.group.Memory.Held, r.group.Memory.MaxHeld = held, held
		l.take(at, r)
	}
	wrong := dawn.Add(365 * 24 * time.Hour)
	for i := range 10 {
		take(wrong.Add(time.Duration(i)*10*time.Minute), int64(i), int64(100-i))
	}
	for i := range 10 {
		take(dawn.Add(time.Duration(i)*10*time.Minute), int64(10+i), 0)
	}
	if got := l.total()[forks]; got != 19 {
		t.Errorf("total: got %d, want 19", got)
	}
	if got := l.since(time.Time{}).peaks[ResourceMemory]; got != 100 {
		t.Errorf("highest: got %d, want 100", got)
	}
	w := l.since(dawn.Add(30 * time.Minute))
	if got := w.totals[forks]; got != 6 {
		t.Errorf("in the last hour: got %d, want 6", got)
	}
	if got := l.since(dawn.Add(45 * time.Minute)).peaks[ResourceMemory]; got != 0 {
		t.Errorf("highest since the clock was set: got %d", got)
	}
}

func TestAClockThatWasAheadForAWhileLosesNoPeak(t *testing.T) {
	var l ledger
	for _, x := range []struct {
		at   time.Duration
		held int64
	}{{0, 1}, {1000 * time.Hour, 100}, {time.Minute, 1}} {
		r := refused("a", dawn.Add(x.at), 0)
		r.group.Memory.Held = x.held
		l.take(dawn.Add(x.at), r)
	}
	if got := l.since(dawn.Add(30 * time.Second)).peaks[ResourceMemory]; got != 100 {
		t.Errorf("got %d, want 100", got)
	}
}

func TestComingToTheDiskQuotaCountsOnceUntilThereIsRoomAgain(t *testing.T) {
	l := new(ledger)
	const limit = 64 << 20
	for i, held := range []int64{1 << 20, limit - 16<<10, limit, limit - 1<<20, limit - fullWithin} {
		l.take(dawn.Add(time.Duration(i)*time.Minute), reading{disk: &storage.Usage{Bytes: held, LimitBytes: limit}})
		l = l.copy(t)
	}
	l.take(dawn.Add(time.Hour), refused("b", dawn, 0)) // not looked at
	l.take(dawn.Add(2*time.Hour), reading{disk: &storage.Usage{Bytes: limit, LimitBytes: limit}})
	l.take(dawn.Add(3*time.Hour), reading{disk: &storage.Usage{LimitBytes: limit}})
	l.take(dawn.Add(4*time.Hour), reading{disk: &storage.Usage{Bytes: limit}}) // no limit
	if got := l.total()[ResourceDisk+failures]; got != 2 {
		t.Errorf("got %d, want 2", got)
	}
	if l.Disk.MaxHeld != limit {
		t.Errorf("most held: got %d", l.Disk.MaxHeld)
	}
}
