package quota

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	memoryMax  = knob{limit: "memory", controller: "memory", v1: "memory.limit_in_bytes", v2: "memory.max"}
	memoryHigh = knob{
		limit: "memory-high", controller: "memory", v2: "memory.high",
		why: "its memory.soft_limit_in_bytes slows nobody down, it only says from whom to take first when the whole host is short",
	}
	memoryMin = knob{limit: "memory-min", controller: "memory", v2: "memory.min", why: "it has no guarantees"}
	swapMax   = knob{
		limit: "swap", controller: "memory", v1: "memory.memsw.limit_in_bytes", v2: "memory.swap.max",
		cure: "boot the host with swapaccount=1, or set swap 0 or unlimited",
	}
)

// pages rounds down as the kernel does.
func pages(n int64) int64 { return n - n%int64(os.Getpagesize()) }

func (g Group) planMemory(l Limits) ([]step, error) {
	_, _, hasHigh, err := g.find(memoryHigh, l.MemoryHighBytes > 0)
	if err != nil {
		return nil, err
	}
	min, _, hasMin, err := g.find(memoryMin, l.MemoryMinBytes > 0)
	if err != nil {
		return nil, err
	}
	if _, _, _, err := g.find(swapMax, l.SwapBytes > 0); err != nil {
		return nil, err
	}
	file, v1, ok, err := g.find(memoryMax, l.MemoryBytes > 0)
	switch {
	case !ok:
		return nil, err
	case v1:
		return g.planMemoryV1(file, l)
	}
	steps, err := g.planMemoryV2(file, l, hasHigh)
	if hasMin {
		steps = append(steps, step{limit: "memory-min", file: min, value: strconv.FormatInt(l.MemoryMinBytes, 10)})
	}
	return steps, err
}

// spare is one page more that v1 is given for memory and swap together. A charge
// is tried against that limit first, and since Linux 6.15 only the other counts
// what fails (track_failcnt in mm/memcontrol.c): without swap the limit would be
// met and memory.failcnt say nothing.
func spare() int64 { return int64(os.Getpagesize()) }

// swapBeyond is the swap of v1's two limits.
func swapBeyond(both, memory int64) int64 { return max(0, both-memory-spare()) }

// planMemoryV1 keeps the order that the kernel demands: memory alone may never
// be more than memory and swap together.
func (g Group) planMemoryV1(file string, l Limits) ([]step, error) {
	value, both := "-1", "-1"
	if l.MemoryBytes > 0 {
		value = strconv.FormatInt(pages(l.MemoryBytes), 10)
		if l.SwapBytes != UnlimitedSwap {
			both = strconv.FormatInt(pages(l.MemoryBytes)+pages(l.SwapBytes)+spare(), 10)
		}
	}
	explain := func(err error) error {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		return g.memoryInUse(l)
	}
	memory := step{limit: "memory", file: file, value: value, explain: explain}
	memsw, _, ok, err := g.find(swapMax, false)
	if err != nil {
		return nil, err
	}
	if !ok {
		steps, err := g.planSwappiness(l)
		return append(steps, memory), err
	}
	swap := step{limit: "swap", file: memsw, value: both, explain: explain}
	now, err := limitOr(file)
	if err != nil {
		return nil, err
	}
	if n, _ := strconv.ParseInt(both, 10, 64); n < 0 || now != Unlimited && n >= now {
		return []step{swap, memory}, nil
	}
	return []step{memory, swap}, nil
}

// planSwappiness stands in for the limit of swap where the kernel does not
// account it: with 0 "limit reclaim enforces that [it] really prevents from any
// swapping", Documentation/admin-guide/cgroup-v1/memory.rst, 5.3.
func (g Group) planSwappiness(l Limits) ([]step, error) {
	file, has := g.swappiness()
	if !has {
		return nil, nil
	}
	if l.MemoryBytes > 0 && l.SwapBytes == 0 {
		return []step{{limit: "swap", file: file, value: "0"}}, nil
	}
	normal, err := readText(g.mounts.v1["memory"] + "/memory.swappiness")
	if err != nil {
		return nil, fmt.Errorf("swap: %w", err)
	}
	return []step{{limit: "swap", file: file, value: normal}}, nil
}

func (g Group) swappiness() (file string, ok bool) {
	dir, _ := g.dirOf("memory")
	file = dir + "/memory.swappiness"
	return file, exists(file)
}

// planMemoryV2 brings usage down with memory.high first when it is above the
// new limit: that reclaims and never kills, memory.max would kill.
func (g Group) planMemoryV2(file string, l Limits, hasHigh bool) ([]step, error) {
	prefix := strings.TrimSuffix(file, "max")
	var steps []step
	if swap := prefix + "swap.max"; exists(swap) {
		value := "max"
		if l.MemoryBytes > 0 && l.SwapBytes != UnlimitedSwap {
			value = strconv.FormatInt(l.SwapBytes, 10)
		}
		steps = append(steps, step{limit: "swap", file: swap, value: value})
	}
	squeeze := func(limit int64) step {
		return step{limit: "memory", file: prefix + "high", value: strconv.FormatInt(limit, 10), always: true, check: func() error {
			left, err := readInt(prefix + "current")
			if err == nil && left > limit {
				err = g.memoryInUse(l)
			}
			return err
		}}
	}
	used, err := readInt(prefix + "current")
	if err != nil {
		return nil, err
	}
	if l.MemoryBytes > 0 && used > l.MemoryBytes && hasHigh {
		steps = append(steps, squeeze(l.MemoryBytes))
	}
	steps = append(steps, step{limit: "memory", file: file, value: maxOr(l.MemoryBytes), always: true, check: func() error { return g.bothFit(prefix, l) }})
	if hasHigh {
		high := step{limit: "memory-high", file: prefix + "high", value: maxOr(l.MemoryHighBytes)}
		if l.MemoryHighBytes > 0 {
			high.check = func() error { return g.highFits(prefix+"current", l.MemoryHighBytes) }
		}
		steps = append(steps, high)
	}
	return steps, nil
}

// bothFit: the kernel takes a swap.max below what is swapped out, and only lets
// nothing more out. As in v1, memory and swap together must be within both limits.
func (g Group) bothFit(prefix string, l Limits) error {
	if l.MemoryBytes == 0 || l.SwapBytes == UnlimitedSwap {
		return nil
	}
	memory, err := readInt(prefix + "current")
	if err != nil {
		return err
	}
	swapped, err := optional(prefix + "swap.current")
	if err == nil && memory+swapped > l.MemoryBytes+l.SwapBytes {
		err = g.memoryInUse(l)
	}
	return err
}

// highFits is asked after the write, by which the kernel has reclaimed what it
// could. Above memory.high every allocation is slowed down, so that a group that
// cannot get below would crawl. An eighth is for what was allocated meanwhile.
func (g Group) highFits(current string, high int64) error {
	n, err := readInt(current)
	if err == nil && n-high > high/8 {
		err = fmt.Errorf("%w: memory-high %s wanted, %s in use cannot be reclaimed; end processes or set at least %dM",
			ErrBelowUsage, FormatBytes(high), mebibytes(n), n>>20+1)
	}
	return err
}

func mebibytes(n int64) string { return strconv.FormatInt(n>>20, 10) + " MiB" }

// memoryInUse is what a limit below usage is answered with.
func (g Group) memoryInUse(l Limits) error {
	var u Usage
	if err := g.memoryUsage(&u); err != nil {
		return errors.Join(ErrBelowUsage, err)
	}
	least := u.Memory.Held>>20 + 1
	if u.Swap.Held == 0 && l.SwapBytes <= 0 {
		return fmt.Errorf("%w: memory %s wanted, %s in use cannot be reclaimed; end processes or set at least %dM",
			ErrBelowUsage, FormatBytes(l.MemoryBytes), mebibytes(u.Memory.Held), least+least/8)
	}
	return fmt.Errorf("%w: memory %s and swap %s wanted, %s and %s in use cannot be reclaimed; end processes or set at least %dM and swap %dM",
		ErrBelowUsage, FormatBytes(l.MemoryBytes), FormatSwap(l.SwapBytes), mebibytes(u.Memory.Held), mebibytes(u.Swap.Held),
		least+least/8, u.Swap.Held>>20+1)
}

func (g Group) readMemory(l *Limits) error {
	file, v1, ok, err := g.find(memoryMax, false)
	if !ok {
		return err
	}
	n, err := limitOr(file)
	if err != nil {
		return err
	}
	if n != Unlimited {
		l.MemoryBytes = n
		if l.SwapBytes, err = g.readSwap(n, v1); err != nil {
			return err
		}
	}
	for k, where := range map[*knob]*int64{&memoryHigh: &l.MemoryHighBytes, &memoryMin: &l.MemoryMinBytes} {
		file, _, ok, err := g.find(*k, false)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if *where, err = readInt(file); err != nil {
			return err
		}
	}
	return nil
}

// readSwap is for a group with a limit of memory.
func (g Group) readSwap(memory int64, v1 bool) (int64, error) {
	file, _, ok, err := g.find(swapMax, false)
	if err != nil {
		return 0, err
	}
	if !ok {
		file, has := g.swappiness()
		if !v1 || !has {
			return 0, nil
		}
		n, err := readInt(file)
		if n != 0 {
			n = UnlimitedSwap
		}
		return n, err
	}
	n, err := limitOr(file)
	if v1 && n != Unlimited {
		n = swapBeyond(n, memory)
	}
	return n, err
}

// keepsUnlimitedSwap tells whether a limit of memory alone can be told from one
// of both.
func (g Group) keepsUnlimitedSwap() bool {
	_, v1, ok, _ := g.find(swapMax, false)
	_, swappiness := g.swappiness()
	return ok || v1 && swappiness
}
