package quota

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuPeriod is the kernel's default period in microseconds.
const cpuPeriod = 100000

// Apply puts the limits in force: all of them or, on an error, none. Zero
// takes a limit away. The controllers are enabled in cgroup2 where needed.
//
// Errors: ErrBadLimit; ErrNotFound if the group does not exist; ErrUnsupported
// if a limit is wanted and the host lacks the controller; ErrBelowUsage if more
// memory is in use than the kernel can reclaim or more tasks exist. The kernel
// would take such a memory limit on cgroup2 and kill processes, and such a pids
// limit everywhere and let every fork fail.
func (g Group) Apply(l Limits) error {
	if err := g.apply(l); err != nil {
		return fmt.Errorf("limit %s: %w", g.name, err)
	}
	return nil
}

func (g Group) apply(l Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if err := g.check(); err != nil {
		return err
	}
	if !g.Exists() {
		return ErrNotFound
	}
	if err := g.enableTop(); err != nil {
		return err
	}
	var steps []step
	for _, plan := range [...]func(Limits) ([]step, error){g.planPIDs, g.planCPU, g.planMemory} {
		s, err := plan(l)
		if err != nil {
			return err
		}
		steps = append(steps, s...)
	}
	return runSteps(steps)
}

// step is one write. check, if set, is asked after it.
type step struct {
	file, value string
	check       func() error
	explain     func(error) error // makes the kernel's refusal readable
}

// runSteps writes in order and on an error writes back what was there, in
// reverse. The old values are read first, so that an unreadable file is found
// before anything has changed.
func runSteps(steps []step) error {
	old := make([]string, len(steps))
	for i, s := range steps {
		var err error
		if old[i], err = readText(s.file); err != nil {
			return err
		}
	}
	for i, s := range steps {
		err := writeText(s.file, s.value)
		if err == nil && s.check != nil {
			err = s.check()
		} else if err != nil && s.explain != nil {
			err = s.explain(err)
		}
		if err != nil {
			return errors.Join(err, undoSteps(steps[:i+1], old))
		}
	}
	return nil
}

func undoSteps(steps []step, old []string) error {
	var errs []error
	for i, s := range slices.Backward(steps) {
		now, err := readText(s.file)
		if err == nil && now != old[i] {
			err = writeText(s.file, old[i])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("put back %s in %s: %w", old[i], s.file, err))
		}
	}
	return errors.Join(errs...)
}

// find returns the controller's directory. ok is false if the file is not
// there and need not be.
func (g Group) find(controller, fileV1, fileV2 string, wanted bool) (file string, v1, ok bool, err error) {
	dir, v1 := g.dirOf(controller)
	file = dir + "/" + fileV2
	if v1 {
		file = dir + "/" + fileV1
	}
	switch {
	case dir != "" && exists(file):
		return file, v1, true, nil
	case !wanted:
		return "", v1, false, nil
	case v1 && !exists(dir):
		return "", v1, false, fmt.Errorf("%w in the hierarchy of the %s controller", ErrNotFound, controller)
	}
	return "", v1, false, fmt.Errorf("%w: the %s controller is missing; enable it in the kernel's configuration or command line",
		ErrUnsupported, controller)
}

func (g Group) planPIDs(l Limits) ([]step, error) {
	file, _, ok, err := g.find("pids", "pids.max", "pids.max", l.PIDs > 0)
	if !ok {
		return nil, err
	}
	if l.PIDs == 0 {
		return []step{{file: file, value: "max"}}, nil
	}
	check := func() error {
		n, err := readInt(strings.TrimSuffix(file, "max") + "current")
		if err == nil && n > l.PIDs {
			err = fmt.Errorf("%w: pids %d wanted, %d tasks exist; end some or set at least %d", ErrBelowUsage, l.PIDs, n, n)
		}
		return err
	}
	// After the write, so that no fork slips in between.
	return []step{{file: file, value: strconv.FormatInt(l.PIDs, 10), check: check}}, nil
}

func (g Group) planCPU(l Limits) ([]step, error) {
	file, v1, ok, err := g.find("cpu", "cpu.cfs_quota_us", "cpu.max", l.CPUs > 0)
	if !ok {
		return nil, err
	}
	amount := strconv.FormatInt(int64(math.Round(l.CPUs*cpuPeriod)), 10)
	period := strconv.Itoa(cpuPeriod)
	if !v1 {
		if l.CPUs == 0 {
			amount = "max"
		}
		return []step{{file: file, value: amount + " " + period}}, nil
	}
	if l.CPUs == 0 {
		amount = "-1"
	}
	return []step{
		{file: strings.TrimSuffix(file, "quota_us") + "period_us", value: period},
		{file: file, value: amount},
	}, nil
}

func (g Group) planMemory(l Limits) ([]step, error) {
	file, v1, ok, err := g.find("memory", "memory.limit_in_bytes", "memory.max", l.MemoryBytes > 0)
	if !ok {
		return nil, err
	}
	if v1 {
		return g.planMemoryV1(file, l.MemoryBytes)
	}
	return g.planMemoryV2(file, l.MemoryBytes)
}

// planMemoryV1 keeps the order that the kernel demands: memory alone may never
// be more than memory and swap together, so a raise begins with the latter.
func (g Group) planMemoryV1(file string, limit int64) ([]step, error) {
	value := "-1"
	if limit > 0 {
		value = strconv.FormatInt(limit, 10)
	}
	explain := func(err error) error {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		return g.memoryInUse(limit)
	}
	steps := []step{{file: file, value: value, explain: explain}}
	swap := strings.TrimSuffix(file, "limit_in_bytes") + "memsw.limit_in_bytes"
	if !exists(swap) { // CONFIG_MEMCG_SWAP or swapaccount off
		return steps, nil
	}
	steps = append(steps, step{file: swap, value: value, explain: explain})
	now, err := readInt(file)
	if err != nil {
		return nil, err
	}
	if limit == 0 || limit > now {
		slices.Reverse(steps)
	}
	return steps, nil
}

// planMemoryV2 brings usage down with memory.high first when it is above the
// new limit: that reclaims and never kills, memory.max would kill. Swap is
// closed with a limit, so that the limit bounds the same as in v1.
func (g Group) planMemoryV2(file string, limit int64) ([]step, error) {
	prefix := strings.TrimSuffix(file, "max")
	value, swapValue := "max", "max"
	if limit > 0 {
		value, swapValue = strconv.FormatInt(limit, 10), "0"
	}
	steps := []step{{file: file, value: value}}
	if swap := prefix + "swap.max"; exists(swap) {
		steps = append(steps, step{file: swap, value: swapValue})
	}
	used, err := readInt(prefix + "current")
	if err != nil {
		return nil, err
	}
	if limit == 0 || used <= limit {
		return steps, nil
	}
	high, err := readText(prefix + "high")
	if err != nil {
		return nil, err
	}
	squeeze := step{file: prefix + "high", value: value, check: func() error {
		left, err := readInt(prefix + "current")
		if err == nil && left > limit {
			err = g.memoryInUse(limit)
		}
		return err
	}}
	release := step{file: prefix + "high", value: high}
	return append(append([]step{squeeze}, steps...), release), nil
}

func (g Group) memoryInUse(limit int64) error {
	var u Usage
	if err := g.memoryUsage(&u); err != nil {
		return errors.Join(ErrBelowUsage, err)
	}
	least := u.MemoryBytes>>20 + 1
	return fmt.Errorf("%w: memory %s wanted, %d MiB in use cannot be reclaimed; end processes or set at least %dM",
		ErrBelowUsage, FormatBytes(limit), u.MemoryBytes>>20, least+least/8)
}

// Read returns the limits in force, ErrNotFound if the group does not exist.
// DiskBytes is always 0.
func (g Group) Read() (Limits, error) {
	if err := g.check(); err != nil {
		return Limits{}, err
	}
	if !g.Exists() {
		return Limits{}, fmt.Errorf("read limits: %s: %w", g.name, ErrNotFound)
	}
	var l Limits
	for _, read := range [...]func(*Limits) error{g.readMemory, g.readPIDs, g.readCPU} {
		if err := read(&l); err != nil && !vanished(err) {
			return Limits{}, fmt.Errorf("read limits of %s: %w", g.name, err)
		}
	}
	return l, nil
}

func (g Group) readMemory(l *Limits) error {
	file, v1, ok, err := g.find("memory", "memory.limit_in_bytes", "memory.max", false)
	if !ok {
		return err
	}
	n, err := readInt(file)
	if err == nil && !(v1 && n >= unlimitedFrom) {
		l.MemoryBytes = n
	}
	return err
}

func (g Group) readPIDs(l *Limits) error {
	file, _, ok, err := g.find("pids", "pids.max", "pids.max", false)
	if !ok {
		return err
	}
	l.PIDs, err = readInt(file)
	return err
}

func (g Group) readCPU(l *Limits) error {
	file, v1, ok, err := g.find("cpu", "cpu.cfs_quota_us", "cpu.max", false)
	if !ok {
		return err
	}
	text, err := readText(file)
	if err != nil {
		return err
	}
	if v1 {
		period, err := readText(strings.TrimSuffix(file, "quota_us") + "period_us")
		if err != nil {
			return err
		}
		text += " " + period
	}
	l.CPUs, err = parseCPUMax(text)
	return err
}

// parseCPUMax reads "QUOTA PERIOD"; a quota of "max" or -1 is no limit.
func parseCPUMax(s string) (float64, error) {
	q, p, _ := strings.Cut(s, " ")
	if q == "max" || q == "-1" {
		return 0, nil
	}
	quota, err1 := strconv.ParseInt(q, 10, 64)
	period, err2 := strconv.ParseInt(p, 10, 64)
	if err := errors.Join(err1, err2); err != nil || period <= 0 || quota < 0 {
		return 0, fmt.Errorf("read the cpu limit: unexpected %q", s)
	}
	return float64(quota) / float64(period), nil
}
