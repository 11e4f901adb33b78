package container

import (
	"maps"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// counts are figures by name, see totalsOf. What is absent is 0.
type counts map[string]int64

// ledger is containers/NAME/usage/usage.json: what a container has used since it was
// made. The tally adds up its cgroups, of which every life has a new one that counts
// from zero; nothing is counted twice, whoever reads and saves it in between.
type ledger struct {
	Since time.Time   `json:"since"` // when counting began
	At    time.Time   `json:"at"`    // of the last reading
	Tally quota.Tally `json:"tally"`
	// Disk is what is held of the disk quota. The kernel counts no failures there:
	// they are the times that it was found full.
	Disk     quota.Resource `json:"disk"`
	DiskFull bool           `json:"diskFull,omitempty"`
	// Recent are the highest figures since the last sample.
	Recent  counts   `json:"recent,omitempty"`
	Samples []sample `json:"samples,omitempty"`
}

// sample is the state at one moment. Oldest first in a ledger.
type sample struct {
	At    time.Time `json:"at"`
	Total counts    `json:"total,omitempty"`
	Peaks counts    `json:"peaks,omitempty"` // highest since the sample before
}

var usageSchema = statefile.Schema{Kind: "container-usage", Version: 1}

// Samples are every five minutes for an hour, then the last of each hour for a day,
// then the last of each day for a month.
const (
	sampleEvery = 5 * time.Minute
	fineAge     = time.Hour
	hourlyAge   = 25 * time.Hour // a whole day, wherever in the hour it begins
	keptAge     = 31 * 24 * time.Hour
)

// reading is what was found at one moment.
type reading struct {
	group *quota.Usage   // nil when there is none
	disk  *storage.Usage // nil when nobody could tell
}

// take adds a reading to the ledger.
func (l *ledger) take(at time.Time, r reading) {
	at = at.UTC().Round(0)
	if l.Since.IsZero() {
		l.Since = at
	}
	if r.group != nil {
		l.takeGroup(*r.group)
	}
	if r.disk != nil {
		l.takeDisk(*r.disk)
	}
	l.At = at
	l.turnBack(at)
	if n := len(l.Samples); n == 0 || at.Sub(l.Samples[n-1].At) >= sampleEvery {
		l.mark()
	}
}

func (l *ledger) takeGroup(now quota.Usage) {
	before := l.Tally.Last
	if before.Life != now.Life {
		before = quota.Usage{}
	}
	l.Tally = l.Tally.Count(now)
	held, had := heldOf(now), heldOf(before)
	for name, r := range held {
		most := r.Held
		if r.MaxHeld > had[name].MaxHeld {
			most = r.MaxHeld // between the two readings
		}
		raise(&l.Recent, counts{name: most})
	}
}

// fullWithin is the room below which the file system may refuse a write: what btrfs
// reserves for changes of two trees, each eight levels of two nodes of 16 KiB
// (btrfs_calc_insert_metadata_size in Linux).
const fullWithin = 512 << 10

func (l *ledger) takeDisk(now storage.Usage) {
	l.Disk.Held, l.Disk.Limit = now.Bytes, now.LimitBytes
	l.Disk.MaxHeld = max(l.Disk.MaxHeld, now.Bytes)
	raise(&l.Recent, counts{ResourceDisk: now.Bytes})
	full := now.LimitBytes > 0 && now.LimitBytes-now.Bytes <= fullWithin
	if full && !l.DiskFull {
		l.Disk.Failures++
	}
	l.DiskFull = full
}

// mark ends the interval under way with a sample: on time, and at both ends of a
// life, so that it is known that nothing was used in between.
func (l *ledger) mark() {
	s := sample{At: l.At, Total: l.total(), Peaks: l.Recent}
	l.Recent = nil
	if n := len(l.Samples); n > 0 && !l.Samples[n-1].At.Before(s.At) {
		raise(&s.Peaks, l.Samples[n-1].Peaks)
		l.Samples = l.Samples[:n-1]
	}
	l.Samples = append(l.Samples, s)
	l.thin()
}

// turnBack drops samples that a clock set back has left in the future.
func (l *ledger) turnBack(now time.Time) {
	for n := len(l.Samples); n > 0 && l.Samples[n-1].At.After(now); n-- {
		raise(&l.Recent, l.Samples[n-1].Peaks)
		l.Samples = l.Samples[:n-1]
	}
	if l.Since.After(now) {
		l.Since = now
	}
}

// thin merges samples that are older than their density is kept for.
func (l *ledger) thin() {
	var out []sample
	for _, s := range l.Samples {
		if n := len(out); n > 0 && slot(out[n-1].At, l.At).Equal(slot(s.At, l.At)) {
			raise(&s.Peaks, out[n-1].Peaks)
			out = out[:n-1]
		}
		out = append(out, s)
	}
	// The newest of those too old stays: what is asked for begins at it.
	for len(out) > 1 && l.At.Sub(out[1].At) >= keptAge {
		out = out[1:]
	}
	l.Samples = out
}

// slot is the stretch of time of which one sample is kept.
func slot(t, now time.Time) time.Time {
	switch age := now.Sub(t); {
	case age < fineAge:
		return t
	case age < hourlyAge:
		return t.Truncate(time.Hour)
	}
	return t.Truncate(24 * time.Hour)
}

// total is what all lives have used.
func (l *ledger) total() counts {
	c := totalsOf(l.Tally.Total())
	raise(&c, counts{ResourceDisk + failures: l.Disk.Failures})
	return c
}

// window is what was used from a moment on.
type window struct {
	from   time.Time
	totals counts
	peaks  counts
}

// since answers for the time from t on, or from the nearest moment before it that
// is known of, which the window says: a sample, or the beginning of it all.
func (l *ledger) since(t time.Time) window {
	w := window{from: l.Since, totals: l.total(), peaks: counts{ResourceDisk: l.Disk.MaxHeld}}
	for name, r := range heldOf(l.Tally.Total()) {
		raise(&w.peaks, counts{name: r.MaxHeld})
	}
	first := -1
	for i, s := range l.Samples {
		if !s.At.After(t) {
			first = i
		}
	}
	if first < 0 || !t.After(l.Since) {
		return w
	}
	begin := l.Samples[first]
	w.from = begin.At
	if after := l.Samples[first+1:]; begin.At.Before(t) && len(after) > 0 && maps.Equal(after[0].Total, begin.Total) {
		w.from = t // nothing happened in between: the container did not run
	}
	for k, v := range begin.Total {
		w.totals[k] = max(0, w.totals[k]-v)
	}
	w.peaks = maps.Clone(l.Recent)
	for _, s := range l.Samples[first+1:] {
		raise(&w.peaks, s.Peaks)
	}
	return w
}

// raise makes every figure at least what it is in by.
func raise(c *counts, by counts) {
	for k, v := range by {
		if v <= (*c)[k] {
			continue
		}
		if *c == nil {
			*c = counts{}
		}
		(*c)[k] = v
	}
}
