package quota

import (
	"fmt"
	"slices"
)

// enableTop enables the controllers that cgroup2 has, for the groups on its top
// level, and keeps them enabled. One can be refused, as cpu is by some kernels while
// there are realtime tasks (Documentation/admin-guide/cgroup-v2.rst, "CPU"): then it
// fails only if needed names the limit that it is needed for. Whatever else uses it
// finds its files absent.
func (g Group) enableTop(needed map[string]string) error {
	if g.mounts.unified == "" {
		return nil
	}
	have, err := readWords(g.mounts.unified + "/cgroup.controllers")
	if err != nil {
		return fmt.Errorf("enable controllers: %w", err)
	}
	var wanted []string
	for _, c := range [...]string{"cpu", "cpuset", "io", "memory", "pids"} {
		if slices.Contains(have, c) {
			wanted = append(wanted, c)
		}
	}
	if len(wanted) == 0 {
		return nil // they are all in v1
	}
	for try := 1; ; try++ {
		if err = g.mounts.keep(wanted, needed); err == nil || try == keepTries || !vanished(err) {
			return err
		}
	}
}

// controllers are those that the limits need, each with the flag of one that does.
func (l Limits) controllers() map[string]string {
	needed := map[string]string{}
	for _, n := range [...]struct {
		is         bool
		controller string
		limit      string
	}{
		{l.PIDs > 0, "pids", pidsMax.limit},
		{l.CPUWeight > 0, "cpu", cpuWeight.limit},
		{l.CPUs > 0, "cpu", cpuMax.limit},
		{l.CPUSet != "", "cpuset", cpuSet.limit},
		{l.IOWeight > 0, "io", ioWeight.limit},
		{len(l.IO) > 0, "io", throttle.limit},
		{l.MemoryMinBytes > 0, "memory", memoryMin.limit},
		{l.MemoryHighBytes > 0, "memory", memoryHigh.limit},
		{l.MemoryBytes > 0, "memory", memoryMax.limit},
	} {
		if n.is {
			needed[n.controller] = n.limit
		}
	}
	return needed
}
