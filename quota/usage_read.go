package quota

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// figures reads numbers into places until one fails.
type figures struct {
	dir string
	err error
}

func (f *figures) read(where *int64, file string, read func(string) (int64, error)) {
	if f.err == nil {
		*where, f.err = read(f.dir + "/" + file)
	}
}

func (f *figures) keys(file string) map[string]int64 {
	if f.err != nil {
		return nil
	}
	keys, err := readKeys(f.dir + "/" + file)
	if !vanished(err) {
		f.err = err
	}
	return keys
}

func (g Group) memoryUsage(u *Usage) error {
	dir, v1 := g.dirOf("memory")
	current := "memory.current"
	if v1 {
		current = "memory.usage_in_bytes"
	}
	if dir == "" || !exists(dir+"/"+current) {
		u.Missing = append(u.Missing, "memory", "swap")
		return nil
	}
	f := &figures{dir: dir}
	f.read(&u.Memory.Held, current, readInt)
	stat := f.keys("memory.stat")
	if v1 { // with the groups below; pages of tmpfs are on the anonymous lists and cannot be dropped
		u.Memory.CacheBytes = stat["total_active_file"] + stat["total_inactive_file"]
		u.Swap.Held = stat["total_swap"] // the difference of the two usages is not read at once
		f.memoryV1(u)
		return f.err
	}
	u.Memory.CacheBytes = stat["active_file"] + stat["inactive_file"]
	f.memoryV2(u)
	return f.err
}

func (f *figures) memoryV1(u *Usage) {
	f.read(&u.Memory.MaxHeld, "memory.max_usage_in_bytes", optional)
	f.read(&u.Memory.Limit, "memory.limit_in_bytes", limitOr)
	f.read(&u.Memory.Failures, "memory.failcnt", optional)
	u.Memory.OOMKills = f.keys("memory.oom_control")["oom_kill"]
	if !exists(f.dir + "/memory.memsw.usage_in_bytes") { // CONFIG_MEMCG_SWAP or swapaccount off
		u.Missing = append(u.Missing, "swap")
		return
	}
	var both int64
	f.read(&both, "memory.memsw.limit_in_bytes", limitOr)
	if both != Unlimited && u.Memory.Limit != Unlimited {
		u.Swap.Limit = swapBeyond(both, u.Memory.Limit)
	}
	f.read(&u.Swap.Failures, "memory.memsw.failcnt", optional)
}

func (f *figures) memoryV2(u *Usage) {
	f.read(&u.Memory.MaxHeld, "memory.peak", optional) // Linux 5.19
	f.read(&u.Memory.Limit, "memory.max", limitOr)
	events := f.keys("memory.events") // with the groups below
	u.Memory.Failures, u.Memory.HighHits = events["max"], events["high"]
	u.Memory.OOMs, u.Memory.OOMKills = events["oom"], events["oom_kill"]
	if !exists(f.dir + "/memory.swap.current") {
		u.Missing = append(u.Missing, "swap")
		return
	}
	f.read(&u.Swap.Held, "memory.swap.current", readInt)
	f.read(&u.Swap.MaxHeld, "memory.swap.peak", optional) // Linux 6.5
	f.read(&u.Swap.Limit, "memory.swap.max", limitOr)
	u.Swap.Failures = f.keys("memory.swap.events")["max"]
}

func (g Group) pidsUsage(u *Usage) error {
	dir, _ := g.dirOf("pids")
	if dir == "" || !exists(dir+"/pids.current") {
		u.Missing = append(u.Missing, "pids")
		return nil
	}
	f := &figures{dir: dir}
	f.read(&u.PIDs.Held, "pids.current", readInt)
	f.read(&u.PIDs.MaxHeld, "pids.peak", optional) // Linux 6.1
	f.read(&u.PIDs.Limit, "pids.max", limitOr)
	if f.err != nil {
		return f.err
	}
	var err error
	u.PIDs.Failures, err = forksRefused(dir)
	return err
}

// forksRefused: since Linux 6.11 pids.events of cgroup2 counts what the group's
// limit refused, in the groups below too, and pids.events.local is there. Before
// that, and in v1, a refusal counts in the cgroup of the process that forked.
func forksRefused(dir string) (int64, error) {
	if exists(dir + "/pids.events.local") {
		keys, err := readKeys(dir + "/pids.events")
		return keys["max"], err
	}
	var n int64
	err := eachDir(dir, func(path string) error {
		keys, err := readKeys(path + "/pids.events")
		if vanished(err) {
			return nil
		}
		n += keys["max"]
		return err
	})
	return n, err
}

// cpuUsage: cpu.stat of cgroup2 has usage_usec without any controller.
func (g Group) cpuUsage(u *Usage) error {
	var err error
	if u.CPU.Time, err = g.cpuTime(); err != nil {
		return err
	}
	dir, v1 := g.dirOf("cpu")
	if dir == "" {
		u.Missing = append(u.Missing, "cpu")
		return nil
	}
	keys, err := readKeys(dir + "/cpu.stat")
	if err != nil {
		return err
	}
	u.CPU.Periods, u.CPU.Failures = keys["nr_periods"], keys["nr_throttled"]
	u.CPU.ThrottledTime = time.Duration(keys["throttled_usec"]) * time.Microsecond
	if v1 {
		u.CPU.ThrottledTime = time.Duration(keys["throttled_time"])
	}
	var l Limits
	err = g.readCPU(&l)
	u.CPU.Limit = l.CPUs
	return err
}

func (g Group) cpuTime() (time.Duration, error) {
	if point, ok := g.mounts.v1["cpuacct"]; ok {
		n, err := readInt(point + g.name + "/cpuacct.usage")
		return time.Duration(n), err
	}
	if g.Unified() == "" {
		return 0, nil
	}
	keys, err := readKeys(g.Unified() + "/cpu.stat")
	return time.Duration(keys["usage_usec"]) * time.Microsecond, err
}

// pressure needs no controller: PSI is counted for every cgroup of cgroup2.
func (g Group) pressure(u *Usage) error {
	if g.Unified() == "" {
		return nil
	}
	for file, where := range map[string]**Stall{
		"cpu.pressure": &u.Pressure.CPU, "memory.pressure": &u.Pressure.Memory, "io.pressure": &u.Pressure.IO,
	} {
		s, err := readText(filepath.Join(g.Unified(), file))
		if vanished(err) || errors.Is(err, unix.EOPNOTSUPP) { // booted with psi=0
			continue
		}
		if err != nil {
			return err
		}
		if *where, err = parseStall(s); err != nil {
			return err
		}
	}
	return nil
}

// parseStall reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and the same
// for "full", which old kernels do not have for cpu.
func parseStall(s string) (*Stall, error) {
	p := new(Stall)
	for line := range strings.Lines(s) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		into := &p.Some
		if words[0] == "full" {
			into = &p.Full
		}
		averages := map[string]*float64{"avg10": &into.Avg10, "avg60": &into.Avg60, "avg300": &into.Avg300}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			var err error
			if where := averages[key]; where != nil {
				*where, err = strconv.ParseFloat(value, 64)
			} else if key == "total" {
				var n int64
				n, err = strconv.ParseInt(value, 10, 64)
				into.Total = time.Duration(n) * time.Microsecond
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}
