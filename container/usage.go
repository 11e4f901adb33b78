package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/btrfs"
)

// Resources that a container holds.
const (
	ResourceCPU        = "cpu"
	ResourceMemory     = "memory"
	ResourceMemoryHigh = "memory-high"
	ResourceOOM        = "oom-kill"
	ResourceSwap       = "swap"
	ResourcePIDs       = "pids"
	ResourceIO         = "io" // followed by the device: "io /dev/vda"
	ResourceDisk       = "disk"
)

// Millionths is the unit of a CPU limit.
const Millionths = 1_000_000

// What else is counted of a resource; failures stand for its limit.
const (
	failures = ".failcnt"
	usedTime = ".ns"
	waited   = ".waitedNs"
	read     = ".read"
	written  = ".written"
)

// Figure is one resource as OpenVZ's user_beancounters showed it.
type Figure struct {
	Resource string
	// Held and MaxHeld are bytes, or tasks of pids; 0 for what is used up.
	Held, MaxHeld int64
	// Limit is quota.Unlimited when there is none. It is bytes or tasks, of cpu
	// Millionths of a CPU; of io there is IOLimit.
	Limit   int64
	IOLimit quota.IOLimit
	// Failures is how often the limit was met: periods of 100 ms in which the CPUs
	// were used up, reclaims of memory, processes killed for want of it, forks
	// refused, readings with the disk as busy as allowed, times that the disk quota
	// was found used up.
	Failures int64
	CPUTime  time.Duration
	// Read and Written are bytes.
	Read, Written int64
}

// Usage is what a container holds, and what it has used in a time.
type Usage struct {
	Name     string
	Status   Status
	Since    time.Time // when the time begins that MaxHeld, Failures and Used are of
	Until    time.Time // now
	Figures  []Figure
	Pressure quota.Pressure // now; nothing unless it runs
	// Waited is how long tasks waited for CPU, memory and disks, where the kernel tells.
	Waited map[string]time.Duration
	// Missing are resources of which the host counts nothing.
	Missing []string
	// Now is what the cgroup says, for rates; zero unless it runs.
	Now quota.Usage
}

// Figure finds a resource; an empty one if there is none.
func (u Usage) Figure(name string) Figure {
	for _, f := range u.Figures {
		if f.Resource == name {
			return f
		}
	}
	return Figure{Resource: name, Limit: quota.Unlimited}
}

// UsageOptions says which usage is wanted.
type UsageOptions struct {
	// Since is the beginning of the time to tell of; zero is the container's
	// creation. It is moved to the nearest earlier moment that is known of: five
	// minutes apart in the last hour, an hour in the last day, a day in the last month.
	Since time.Time
}

// Usage tells what a container uses and has used, over all its lives. It changes
// nothing: a container's supervisor keeps the books.
func (m *Manager) Usage(_ context.Context, name string, o UsageOptions) (u Usage, err error) {
	defer wrapOp("usage", name, &err)
	info, err := m.get(name)
	if err != nil {
		return u, err
	}
	book, err := readLedger(m.usageFile(name))
	if err != nil {
		return u, err
	}
	now := time.Now()
	var r reading
	if r.disk, err = diskHeld(m.Volumes.Path(info.State.Volume)); err != nil {
		return u, err
	}
	if info.Run.Alive() {
		if r.group, err = groupUsage(info.Config); err != nil {
			return u, err
		}
	}
	book.take(now, r)
	w := book.since(o.Since)
	u = Usage{Name: name, Status: info.Status, Since: w.from, Until: book.At, Waited: map[string]time.Duration{}}
	total := book.Tally.Total()
	if r.group == nil {
		total = idle(total, info.Config.Limits)
	} else {
		u.Now, u.Pressure, u.Missing = *r.group, r.group.Pressure, r.group.Missing
	}
	for _, res := range []string{ResourceCPU, ResourceMemory, ResourceIO} {
		if ns, ok := w.totals[res+waited]; ok {
			u.Waited[res] = time.Duration(ns)
		}
	}
	u.Figures = figuresOf(total, orUnlimited(info.Config.Limits.MemoryHighBytes), w)
	if r.disk == nil {
		u.Missing = append(u.Missing, ResourceDisk)
		return u, nil
	}
	u.Figures = append(u.Figures, w.figure(ResourceDisk, quota.Resource{Held: r.disk.Bytes, Limit: orUnlimited(r.disk.LimitBytes)}))
	return u, nil
}

// groupUsage is nil when the container ends in this moment.
func groupUsage(c Config) (*quota.Usage, error) {
	g, err := quota.Open(c.CgroupName())
	if err != nil {
		return nil, err
	}
	u, err := g.Usage()
	if errors.Is(err, quota.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented
	}
	return &u, err
}

// diskHeld is nil where nobody counts, and while a rollback changes the volume.
func diskHeld(volume string) (*storage.Usage, error) {
	u, err := btrfs.Held(volume)
	if errors.Is(err, storage.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // documented
	}
	return &u, err
}

// idle is what a container holds that does not run, and the limits that it would have.
func idle(u quota.Usage, l quota.Limits) quota.Usage {
	u.CPU.Limit = l.CPUs
	swap := l.SwapBytes
	if l.MemoryBytes == 0 || swap == quota.UnlimitedSwap {
		swap = quota.Unlimited
	}
	for _, r := range []struct {
		of    *quota.Resource
		limit int64
	}{{&u.Memory.Resource, orUnlimited(l.MemoryBytes)}, {&u.Swap, swap}, {&u.PIDs, orUnlimited(l.PIDs)}} {
		r.of.Held, r.of.Limit = 0, r.limit
	}
	return u
}

func orUnlimited(n int64) int64 {
	if n == 0 {
		return quota.Unlimited
	}
	return n
}

// usageFile has a directory of its own: it is written without the container's lock,
// and what is half written in the container's own directory is swept.
func (m *Manager) usageFile(name string) string {
	return filepath.Join(m.dir(name), "usage", "usage.json")
}

// readLedger gives an empty one when there is none yet.
func readLedger(path string) (*ledger, error) {
	l := new(ledger)
	if err := usageSchema.Read(path, l); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l, nil
}

// heldOf are the resources of which something can be held.
func heldOf(u quota.Usage) map[string]quota.Resource {
	return map[string]quota.Resource{ResourceMemory: u.Memory.Resource, ResourceSwap: u.Swap, ResourcePIDs: u.PIDs}
}

// totalsOf are all counters of a usage that only grow, but those that are 0.
func totalsOf(u quota.Usage) counts {
	c := counts{}
	raise(&c, counts{
		ResourceCPU + usedTime: int64(u.CPU.Time), ResourceCPU + failures: u.CPU.Failures,
		ResourceMemory + failures: u.Memory.Failures, ResourceMemoryHigh + failures: u.Memory.HighHits,
		ResourceOOM + failures: u.Memory.OOMKills, ResourceSwap + failures: u.Swap.Failures, ResourcePIDs + failures: u.PIDs.Failures,
	})
	for _, d := range u.IO {
		name := ioResource(d.Device)
		raise(&c, counts{name + read: d.ReadBytes, name + written: d.WriteBytes, name + failures: d.Failures})
	}
	for name, s := range map[string]*quota.Stall{ResourceCPU: u.Pressure.CPU, ResourceMemory: u.Pressure.Memory, ResourceIO: u.Pressure.IO} {
		if s != nil {
			c[name+waited] = int64(s.Some.Total)
		}
	}
	return c
}

func ioResource(device string) string { return fmt.Sprintf("%s %s", ResourceIO, device) }

// figure puts together what is held now and what was used in a time.
func (w window) figure(name string, r quota.Resource) Figure {
	f := Figure{Resource: name, Held: r.Held, MaxHeld: max(r.Held, w.peaks[name]), Limit: r.Limit, Failures: w.totals[name+failures]}
	if strings.HasPrefix(name, ResourceIO+" ") {
		f.Read, f.Written = w.totals[name+read], w.totals[name+written]
	}
	return f
}

func figuresOf(u quota.Usage, high int64, w window) []Figure {
	cpu := w.figure(ResourceCPU, quota.Resource{Limit: orUnlimited(int64(math.Round(u.CPU.Limit * Millionths)))})
	cpu.CPUTime = time.Duration(w.totals[ResourceCPU+usedTime])
	list := []Figure{
		cpu,
		w.figure(ResourceMemory, u.Memory.Resource),
		w.figure(ResourceMemoryHigh, quota.Resource{Limit: high}),
		w.figure(ResourceOOM, quota.Resource{Limit: quota.Unlimited}),
		w.figure(ResourceSwap, u.Swap),
		w.figure(ResourcePIDs, u.PIDs),
	}
	for _, d := range u.IO {
		f := w.figure(ioResource(d.Device), quota.Resource{Limit: quota.Unlimited})
		f.IOLimit = d.Limit
		list = append(list, f)
	}
	return list
}
