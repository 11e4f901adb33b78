package quota

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Tally adds usage up over the lives of a container: every start and every
// restore makes a new cgroup, which counts from 0. It is kept as JSON by whoever
// reads usage now and then, at least once before a cgroup is removed; nothing has
// to run in between.
type Tally struct {
	Earlier Usage `json:"earlier"` // counters and most held of lives that ended, and what Count found
	Last    Usage `json:"last"`    // the reading before
}

// Count takes a new reading in. A reading of the same life that is older than
// the last one, by another process, changes nothing; clocks can be set back, cpu
// time cannot. Of a cgroup that was being removed while it was read some counters
// may be missing: in one life none becomes smaller.
func (t Tally) Count(now Usage) Tally {
	switch {
	case t.Last.Life != now.Life:
		t.Earlier = t.Last.Add(t.Earlier).counters()
	case now.CPU.Time < t.Last.CPU.Time:
		return t
	default:
		t.Earlier = t.Earlier.withHits(now, t.Last)
		now = now.merge(t.Last, func(a, b int64) int64 { return max(a, b) })
	}
	for _, r := range [...]struct{ most, now *Resource }{
		{&t.Earlier.Memory.Resource, &now.Memory.Resource},
		{&t.Earlier.Swap, &now.Swap},
		{&t.Earlier.PIDs, &now.PIDs},
	} {
		r.most.MaxHeld = max(r.most.MaxHeld, r.now.MaxHeld)
	}
	t.Last = now
	return t
}

// Total returns the last reading with the counters of all lives.
func (t Tally) Total() Usage { return t.Last.Add(t.Earlier) }

// atLimit is the part of an io limit from which on a group is at it, in percent:
// the kernel lets transfers through in slices of time.
const atLimit = 90

// withHits counts for each disk whether the group was at a limit between two
// readings.
func (u Usage) withHits(now, before Usage) Usage {
	span := now.Time.Sub(before.Time)
	if span < time.Millisecond {
		return u
	}
	u.IO = slices.Clone(u.IO)
	for _, d := range now.IO {
		used := d.minus(find(before.IO, d.Device))
		for _, r := range [...]struct{ used, limit int64 }{
			{used.ReadBytes, d.Limit.ReadBPS},
			{used.WriteBytes, d.Limit.WriteBPS},
			{used.Reads, d.Limit.ReadIOPS},
			{used.Writes, d.Limit.WriteIOPS},
		} {
			if r.limit > 0 && float64(r.used)/span.Seconds()*100 >= float64(r.limit)*atLimit {
				u.IO = addIO(u.IO, IOUsage{Device: d.Device, Failures: 1})
				break
			}
		}
	}
	return u
}

// Add returns u with the counters of an earlier life added and the larger of
// both MaxHeld. What is held, limited and averaged is u's.
func (u Usage) Add(earlier Usage) Usage {
	u = u.merge(earlier, func(a, b int64) int64 { return a + b })
	for _, r := range [...]struct{ to, from *Resource }{
		{&u.Memory.Resource, &earlier.Memory.Resource},
		{&u.Swap, &earlier.Swap},
		{&u.PIDs, &earlier.PIDs},
	} {
		r.to.MaxHeld = max(r.to.MaxHeld, r.from.MaxHeld)
	}
	return u
}

// merge is combine, with the disks that only the other has.
func (u Usage) merge(other Usage, f func(a, b int64) int64) Usage {
	u = u.combine(other, f)
	for _, d := range other.IO {
		if !slices.ContainsFunc(u.IO, func(x IOUsage) bool { return x.Device == d.Device }) {
			d.Limit = IOLimit{Device: d.Device}
			u.IO = addIO(u.IO, d)
		}
	}
	return u
}

// Since returns u with the counters as they grew since base, a total of the same
// container. What is held, limited and averaged, and MaxHeld, are u's. A counter
// that is smaller than before has begun anew: what it holds is what it grew.
func (u Usage) Since(base Usage) Usage {
	return u.combine(base, func(a, b int64) int64 {
		if b > a {
			return a
		}
		return a - b
	})
}

// combine applies f to each counter of both. Neither is changed.
func (u Usage) combine(other Usage, f func(a, b int64) int64) Usage {
	u.Pressure, u.IO = u.Pressure.clone(), slices.Clone(u.IO)
	other.Pressure = other.Pressure.clone()
	for _, p := range [...]struct{ a, b **Stall }{
		{&u.Pressure.CPU, &other.Pressure.CPU},
		{&u.Pressure.Memory, &other.Pressure.Memory},
		{&u.Pressure.IO, &other.Pressure.IO},
	} {
		if *p.a == nil && *p.b == nil {
			continue
		}
		to, from := cmp.Or(*p.a, new(Stall)), cmp.Or(*p.b, new(Stall))
		to.Some.Total = time.Duration(f(int64(to.Some.Total), int64(from.Some.Total)))
		to.Full.Total = time.Duration(f(int64(to.Full.Total), int64(from.Full.Total)))
		*p.a = to
	}
	u.CPU.Time = time.Duration(f(int64(u.CPU.Time), int64(other.CPU.Time)))
	u.CPU.ThrottledTime = time.Duration(f(int64(u.CPU.ThrottledTime), int64(other.CPU.ThrottledTime)))
	for _, c := range [...]struct {
		to   *int64
		from int64
	}{
		{&u.CPU.Periods, other.CPU.Periods},
		{&u.CPU.Failures, other.CPU.Failures},
		{&u.Memory.Failures, other.Memory.Failures},
		{&u.Memory.HighHits, other.Memory.HighHits},
		{&u.Memory.OOMs, other.Memory.OOMs},
		{&u.Memory.OOMKills, other.Memory.OOMKills},
		{&u.Swap.Failures, other.Swap.Failures},
		{&u.PIDs.Failures, other.PIDs.Failures},
	} {
		*c.to = f(*c.to, c.from)
	}
	for i, d := range u.IO {
		u.IO[i] = d.combine(find(other.IO, d.Device), f)
	}
	return u
}

func (d IOUsage) combine(other IOUsage, f func(a, b int64) int64) IOUsage {
	d.ReadBytes, d.WriteBytes = f(d.ReadBytes, other.ReadBytes), f(d.WriteBytes, other.WriteBytes)
	d.Reads, d.Writes = f(d.Reads, other.Reads), f(d.Writes, other.Writes)
	d.Failures = f(d.Failures, other.Failures)
	return d
}

func (d IOUsage) minus(before IOUsage) IOUsage {
	return d.combine(before, func(a, b int64) int64 { return max(0, a-b) })
}

// find returns an empty entry for a disk that is not there.
func find(list []IOUsage, device string) IOUsage {
	i := slices.IndexFunc(list, func(d IOUsage) bool { return d.Device == device })
	if i < 0 {
		return IOUsage{Device: device}
	}
	return list[i]
}

// addIO may write into list.
func addIO(list []IOUsage, d IOUsage) []IOUsage {
	i := slices.IndexFunc(list, func(x IOUsage) bool { return x.Device == d.Device })
	if i < 0 {
		list = append(list, d)
		slices.SortFunc(list, func(a, b IOUsage) int { return strings.Compare(a.Device, b.Device) })
		return list
	}
	list[i] = list[i].combine(d, func(a, b int64) int64 { return a + b })
	return list
}

// counters is u without what only holds for the moment.
func (u Usage) counters() Usage {
	u.Time, u.Life, u.Missing, u.CPU.Limit, u.Memory.CacheBytes = time.Time{}, "", nil, 0, 0
	for _, r := range [...]*Resource{&u.Memory.Resource, &u.Swap, &u.PIDs} {
		r.Held, r.Limit = 0, 0
	}
	for i := range u.IO {
		u.IO[i].Limit = IOLimit{Device: u.IO[i].Device}
	}
	u.Pressure = Pressure{u.Pressure.CPU.totals(), u.Pressure.Memory.totals(), u.Pressure.IO.totals()}
	return u
}

// totals is nil for nil.
func (s *Stall) totals() *Stall {
	if s == nil {
		return nil
	}
	return &Stall{StallTime{Total: s.Some.Total}, StallTime{Total: s.Full.Total}}
}

func (p Pressure) clone() Pressure {
	for _, s := range [...]**Stall{&p.CPU, &p.Memory, &p.IO} {
		if *s != nil {
			c := **s
			*s = &c
		}
	}
	return p
}

// Rates are what was used in the time between two readings.
type Rates struct {
	Interval   time.Duration `json:"intervalNs"`
	CPUs       float64       `json:"cpus"`      // cpu time per time
	Throttled  float64       `json:"throttled"` // periods with the quota used up, in percent
	ReadBPS    float64       `json:"readBps"`   // of all disks
	WriteBPS   float64       `json:"writeBps"`
	ReadIOPS   float64       `json:"readIops"`
	WriteIOPS  float64       `json:"writeIops"`
	IOPressure float64       `json:"ioPressure"` // part of the time in which some task waited for a disk, in percent
}

// Rates compares u with an earlier reading. It is false when the two are not of
// the same life or no time has passed.
func (u Usage) Rates(before Usage) (Rates, bool) {
	span := u.Time.Sub(before.Time)
	if u.Life != before.Life || span <= 0 {
		return Rates{}, false
	}
	grown := u.Since(before)
	r := Rates{Interval: span, CPUs: grown.CPU.Time.Seconds() / span.Seconds()}
	if grown.CPU.Periods > 0 {
		r.Throttled = 100 * float64(grown.CPU.Failures) / float64(grown.CPU.Periods)
	}
	for _, d := range grown.IO {
		r.ReadBPS += float64(d.ReadBytes) / span.Seconds()
		r.WriteBPS += float64(d.WriteBytes) / span.Seconds()
		r.ReadIOPS += float64(d.Reads) / span.Seconds()
		r.WriteIOPS += float64(d.Writes) / span.Seconds()
	}
	if p := grown.Pressure.IO; p != nil {
		r.IOPressure = min(100, 100*p.Some.Total.Seconds()/span.Seconds())
	}
	return r, true
}
