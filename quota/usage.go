package quota

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unlimited is the Limit of a Resource that has none.
const Unlimited = -1

// Usage is one reading of what a group uses and of how often it met its limits.
// It is made to be kept as JSON. Figures that say "since the group was made"
// begin at 0 in every life of a container: a Tally adds them up.
type Usage struct {
	Time time.Time `json:"time"` // of the reading
	// Life names the cgroup that was read: another value means that another
	// cgroup, of the same name, began to count at 0.
	Life string `json:"life,omitempty"`

	CPU    CPUUsage    `json:"cpu"`
	Memory MemoryUsage `json:"memory"`
	Swap   Resource    `json:"swap"` // bytes, beyond memory
	PIDs   Resource    `json:"pids"` // tasks; Failures are forks refused
	// IO has an entry for each disk that was used or is limited, by name.
	IO       []IOUsage `json:"io,omitempty"`
	Pressure Pressure  `json:"pressure"`

	// Missing are those of cpu, memory, swap, pids and io of which this host
	// counts nothing; their figures are 0.
	Missing []string `json:"missing,omitempty"`
}

// Resource is what OpenVZ's user_beancounters say of one.
type Resource struct {
	Held     int64 `json:"held"`    // now
	MaxHeld  int64 `json:"maxHeld"` // most since the group was made, as far as the kernel or a Tally has seen
	Limit    int64 `json:"limit"`   // Unlimited if there is none
	Failures int64 `json:"failcnt"` // how often the limit was met, since the group was made
}

// CPUUsage is cpu time since the group was made.
type CPUUsage struct {
	Time          time.Duration `json:"timeNs"`
	Limit         float64       `json:"limit"`       // in CPUs, 0 is none
	Periods       int64         `json:"periods"`     // of 100 ms in which it ran and was limited
	Failures      int64         `json:"failcnt"`     // periods of which the quota was used up: nr_throttled
	ThrottledTime time.Duration `json:"throttledNs"` // that its CPUs had to wait, added up
}

// MemoryUsage is in bytes. Held includes the page cache: it is what the limit
// bounds. Failures is how often the limit was met and memory had to be
// reclaimed (memory.events max, memory.failcnt in v1), which is not an error of
// any process yet.
type MemoryUsage struct {
	Resource
	CacheBytes int64 `json:"cacheBytes"` // part of Held that the kernel can drop
	HighHits   int64 `json:"highHits"`   // how often it was slowed down at memoryHigh; cgroup2
	OOMs       int64 `json:"ooms"`       // allocations that failed at the limit; cgroup2
	OOMKills   int64 `json:"oomKills"`   // processes killed for want of memory
}

// IOUsage is what went to and came from one disk since the group was made. With
// cgroup v1 what the kernel writes back later is nobody's. The kernel does not
// count how often it delays a transfer, so Failures is counted by a Tally:
// readings that found the group at a limit of this disk.
type IOUsage struct {
	Device     string  `json:"device"` // "/dev/vda", or "254:0" when it is gone
	ReadBytes  int64   `json:"readBytes"`
	WriteBytes int64   `json:"writeBytes"`
	Reads      int64   `json:"reads"`
	Writes     int64   `json:"writes"`
	Limit      IOLimit `json:"limit"`
	Failures   int64   `json:"failcnt"`
}

// Pressure says how long tasks had to wait (PSI). A nil means that the kernel
// does not tell: there is no cgroup2, or psi is off.
type Pressure struct {
	CPU    *Stall `json:"cpu,omitempty"`
	Memory *Stall `json:"memory,omitempty"`
	IO     *Stall `json:"io,omitempty"`
}

// Stall is one file of PSI, Documentation/accounting/psi.rst.
type Stall struct {
	Some StallTime `json:"some"` // at least one task waited
	Full StallTime `json:"full"` // all that could run waited
}

// StallTime holds averages in percent of the time.
type StallTime struct {
	Avg10  float64       `json:"avg10"` // over 10 s
	Avg60  float64       `json:"avg60"`
	Avg300 float64       `json:"avg300"`
	Total  time.Duration `json:"totalNs"` // since the group was made
}

// Usage reads the figures. ErrNotFound if the group does not exist.
func (g Group) Usage() (Usage, error) {
	if err := g.check(); err != nil {
		return Usage{}, err
	}
	if !g.Exists() {
		return Usage{}, fmt.Errorf("read usage: %s: %w", g.name, ErrNotFound)
	}
	u := Usage{Time: time.Now().UTC()}
	u.Memory.Limit, u.Swap.Limit, u.PIDs.Limit = Unlimited, Unlimited, Unlimited
	for _, read := range [...]func(*Usage) error{
		g.life, g.memoryUsage, g.pidsUsage, g.cpuUsage, g.ioUsage, g.pressure,
	} {
		if err := read(&u); err != nil && !vanished(err) {
			return Usage{}, fmt.Errorf("read usage of %s: %w", g.name, err)
		}
	}
	u.Memory.raise()
	u.Swap.raise()
	u.PIDs.raise()
	slices.Sort(u.Missing)
	return u, nil
}

// raise holds for kernels that do not tell the most.
func (r *Resource) raise() { r.MaxHeld = max(r.MaxHeld, r.Held) }

// life: the inode number of a cgroup is not given again while the host runs.
func (g Group) life(u *Usage) error {
	dir, err := g.main()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	boot, err := readText("/proc/sys/kernel/random/boot_id")
	first, _, _ := strings.Cut(boot, "-")
	u.Life = fmt.Sprintf("%s-%d", first, st.Ino)
	return err
}

// dirOf returns the directory where the files of a controller, as cgroup2 calls
// it, are, and whether
// that is a v1 hierarchy; "" if the controller is nowhere.
func (g Group) dirOf(controller string) (dir string, v1 bool) {
	key := controller
	if key == "io" {
		key = "blkio"
	}
	if point, ok := g.mounts.v1[key]; ok {
		return point + g.name, true
	}
	return g.Unified(), false
}

// limitOr reads a limit of Usage; a file that is not there limits nothing.
func limitOr(path string) (int64, error) {
	s, err := readText(path)
	if vanished(err) || err == nil && s == "max" {
		return Unlimited, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := readInt(path)
	if n >= unlimitedFrom {
		n = Unlimited
	}
	return n, err
}

// optional reads a figure that not every kernel has.
func optional(path string) (int64, error) {
	n, err := readInt(path)
	if vanished(err) {
		return 0, nil
	}
	return n, err
}
