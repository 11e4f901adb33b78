package quota

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuPeriod is the kernel's default period in microseconds.
const cpuPeriod = 100000

var (
	pidsMax   = knob{limit: "pids", controller: "pids", v1: "pids.max", v2: "pids.max"}
	cpuMax    = knob{limit: "cpus", controller: "cpu", v1: "cpu.cfs_quota_us", v2: "cpu.max"}
	cpuWeight = knob{limit: "cpu-weight", controller: "cpu", v1: "cpu.shares", v2: "cpu.weight"}
	cpuSet    = knob{limit: "cpuset", controller: "cpuset", v1: "cpuset.cpus", v2: "cpuset.cpus"}
)

func (g Group) planPIDs(l Limits) ([]step, error) {
	file, _, ok, err := g.find(pidsMax, l.PIDs > 0)
	if !ok {
		return nil, err
	}
	if l.PIDs == 0 {
		return []step{{limit: "pids", file: file, value: "max"}}, nil
	}
	check := func() error {
		n, err := readInt(strings.TrimSuffix(file, "max") + "current")
		if err == nil && n > l.PIDs {
			err = fmt.Errorf("%w: pids %d wanted, %d tasks exist; end some or set at least %d", ErrBelowUsage, l.PIDs, n, n)
		}
		return err
	}
	// After the write, so that no fork slips in between.
	return []step{{limit: "pids", file: file, value: strconv.FormatInt(l.PIDs, 10), check: check}}, nil
}

func (g Group) planCPU(l Limits) ([]step, error) {
	file, v1, ok, err := g.find(cpuMax, l.CPUs > 0)
	if !ok {
		return nil, err
	}
	amount := strconv.FormatInt(int64(math.Round(l.CPUs*cpuPeriod)), 10)
	period := strconv.Itoa(cpuPeriod)
	if !v1 {
		if l.CPUs == 0 {
			amount = "max"
		}
		return []step{{limit: "cpus", file: file, value: amount + " " + period}}, nil
	}
	if l.CPUs == 0 {
		amount = "-1"
	}
	return []step{
		{limit: "cpus", file: strings.TrimSuffix(file, "quota_us") + "period_us", value: period},
		{limit: "cpus", file: file, value: amount},
	}, nil
}

// toShares gives cpu.shares of v1 the value that the kernel itself makes of a
// cpu.weight: sched_weight_from_cgroup in kernel/sched/sched.h, weight*1024/100
// rounded, so that a weight means the same share on both; systemd does likewise
// (cgroup_cpu_weight_to_shares). runc's formula bends the line so that the ends
// of both ranges meet, and does not keep the proportions of two groups.
func toShares(weight int64) int64 { return (weight*1024 + DefaultWeight/2) / DefaultWeight }

// fromShares is sched_weight_to_cgroup.
func fromShares(shares int64) int64 {
	return min(max((shares*DefaultWeight+512)/1024, 1), MaxWeight)
}

func (g Group) planCPUWeight(l Limits) ([]step, error) {
	file, v1, ok, err := g.find(cpuWeight, l.CPUWeight > 0)
	if !ok {
		return nil, err
	}
	n := cmp.Or(l.CPUWeight, DefaultWeight)
	if v1 {
		n = toShares(n)
	}
	return []step{{limit: "cpu-weight", file: file, value: strconv.FormatInt(n, 10)}}, nil
}

// planCPUSet: an empty set is every CPU in cgroup2, but a set cannot be emptied
// while there are processes (seen with Linux 6.12). In v1 all must be spelled out,
// and a group takes no process before there are memory nodes too.
func (g Group) planCPUSet(l Limits) ([]step, error) {
	file, v1, ok, err := g.find(cpuSet, l.CPUSet != "")
	if !ok {
		return nil, err
	}
	host, err := g.hostCPUs()
	if err != nil {
		return nil, fmt.Errorf("cpuset: %w", err)
	}
	wanted, _ := parseCPUs(l.CPUSet) // Validate has read it
	if absent := wanted.without(host); len(absent) > 0 {
		return nil, fmt.Errorf("%w: cpuset %s wanted, CPU %s is not online here; this host has %s", ErrBadLimit, l.CPUSet, absent, host)
	}
	explain := func(err error) error {
		switch {
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("a cgroup below runs on other CPUs, or realtime tasks need theirs: %w", err)
		case errors.Is(err, unix.EACCES):
			return fmt.Errorf("the group above does not have these CPUs: %w", err)
		}
		return err
	}
	set := step{limit: "cpuset", file: file, value: l.CPUSet, instead: host.String(), explain: explain}
	if !v1 {
		return []step{set}, nil
	}
	if l.CPUSet == "" {
		set.value = host.String()
	}
	mems := strings.TrimSuffix(file, "cpus") + "mems"
	have, err := readText(mems)
	if err != nil || have != "" {
		return []step{set}, err
	}
	all, err := readText(g.mounts.v1["cpuset"] + "/cpuset.mems")
	if err != nil {
		return nil, fmt.Errorf("cpuset: %w", err)
	}
	return []step{{limit: "cpuset", file: mems, value: all}, set}, nil
}

// hostCPUs are those that a group on the top level may have.
func (g Group) hostCPUs() (cpus, error) {
	path := g.mounts.unified + "/cpuset.cpus.effective"
	if point, ok := g.mounts.v1["cpuset"]; ok {
		path = point + "/cpuset.cpus"
	}
	if !exists(path) { // the root of cgroup2 once had none
		path = "/sys/devices/system/cpu/online"
	}
	s, err := readText(path)
	if err != nil {
		return nil, err
	}
	set, ok := parseCPUs(s)
	if !ok {
		return nil, fmt.Errorf("read %s: unexpected %q", path, s)
	}
	return set, nil
}

func (g Group) readPIDs(l *Limits) error {
	file, _, ok, err := g.find(pidsMax, false)
	if !ok {
		return err
	}
	l.PIDs, err = readInt(file)
	return err
}

func (g Group) readCPU(l *Limits) error {
	file, v1, ok, err := g.find(cpuMax, false)
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

func (g Group) readCPUWeight(l *Limits) error {
	file, v1, ok, err := g.find(cpuWeight, false)
	if !ok {
		return err
	}
	n, err := readInt(file)
	if v1 {
		n = fromShares(n)
	}
	if n != DefaultWeight {
		l.CPUWeight = n
	}
	return err
}

func (g Group) readCPUSet(l *Limits) error {
	file, _, ok, err := g.find(cpuSet, false)
	if !ok {
		return err
	}
	s, err := readText(file)
	if err != nil {
		return err
	}
	set, ok := parseCPUs(s)
	if !ok {
		return fmt.Errorf("read %s: unexpected %q", file, s)
	}
	l.CPUSet, err = g.cpuSetOf(set)
	return err
}

// cpuSetOf: all of the host's is no limit, nor is none in cgroup2.
func (g Group) cpuSetOf(set cpus) (string, error) {
	host, err := g.hostCPUs()
	if err != nil || len(host.without(set)) == 0 {
		return "", err
	}
	return set.String(), nil
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
