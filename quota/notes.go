package quota

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Notes are sentences for whoever sets l on this host: what Apply takes and the
// kernel does in part, or not with its present settings.
func (g Group) Notes(l Limits) []string {
	var notes []string
	add := func(when bool, format string, args ...any) {
		if when {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	host, err := g.hostCPUs()
	add(err == nil && l.CPUs > float64(len(host)), "cpus %s is more than this host has: %d", FormatCPUs(l.CPUs), len(host))
	_, v1, throttled, _ := g.find(throttle, false)
	add(throttled && v1 && writesLimited(l.IO),
		"io-write: with cgroup v1 it holds for direct and synced writes; what the kernel writes back later is counted for nobody. Cgroup v2 counts it")
	add(l.IOWeight != 0 && !g.weighs(),
		"io-weight: no disk of this host looks at it; choose the scheduler bfq for the disk (/sys/block/DISK/queue/scheduler), or set up io.cost.qos with cgroup v2")
	_, v1, accounted, _ := g.find(swapMax, false)
	add(v1 && !accounted && l.MemoryBytes > 0 && l.SwapBytes == 0,
		"swap: this kernel does not account it; the limit of memory lets nothing be swapped out, but a host short of memory may")
	return notes
}

func writesLimited(list []IOLimit) bool {
	for _, l := range list {
		if l.WriteBPS != 0 || l.WriteIOPS != 0 {
			return true
		}
	}
	return false
}

// weighs tells whether any disk's scheduler knows weights.
func (g Group) weighs() bool {
	if s, err := readText(g.mounts.unified + "/io.cost.qos"); err == nil && strings.Contains(s, "enable=1") {
		return true
	}
	files, _ := filepath.Glob("/sys/block/*/queue/scheduler") // the pattern is well-formed
	for _, f := range files {
		if s, err := readText(f); err == nil && strings.Contains(s, "[bfq]") {
			return true
		}
	}
	return false
}
