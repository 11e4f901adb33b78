package quota

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseCPUSet reads a list of CPUs as the kernel writes it, "0-3,6", and returns
// it sorted and merged. "all" and the words for no limit are the empty list,
// which is every CPU. Errors match ErrBadLimit.
func ParseCPUSet(s string) (string, error) {
	const cure = `write CPU numbers and ranges like 0-3,6; all is every CPU`
	if unlimited(s) || strings.EqualFold(strings.TrimSpace(s), "all") {
		return "", nil
	}
	set, ok := parseCPUs(strings.TrimSpace(s))
	if !ok || len(set) == 0 {
		return "", badLimit("cpuset", s, "is not a list of CPU numbers", cure)
	}
	return set.String(), nil
}

// cpus is a set of CPU numbers, sorted, without repetition.
type cpus []int

// parseCPUs reads "0-3,6", bounded in length and in number.
func parseCPUs(s string) (cpus, bool) {
	const longest = 4096
	if len(s) > longest {
		return nil, false
	}
	var set cpus
	if s == "" {
		return set, true
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			last = first
		}
		a, ok1 := cpuNumber(first)
		b, ok2 := cpuNumber(last)
		if !ok1 || !ok2 || b < a {
			return nil, false
		}
		for n := a; n <= b; n++ {
			set = append(set, n)
		}
		if len(set) > MaxCPUs*4 { // overlapping ranges
			return nil, false
		}
	}
	slices.Sort(set)
	return slices.Compact(set), true
}

func cpuNumber(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n < MaxCPUs
}

// String writes it as the kernel does.
func (c cpus) String() string {
	var b strings.Builder
	for i := 0; i < len(c); {
		j := i
		for j+1 < len(c) && c[j+1] == c[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		if j == i {
			fmt.Fprintf(&b, "%d", c[i])
		} else {
			fmt.Fprintf(&b, "%d-%d", c[i], c[j])
		}
		i = j + 1
	}
	return b.String()
}

// without returns those of c that are not in other.
func (c cpus) without(other cpus) cpus {
	var left cpus
	for _, n := range c {
		if _, found := slices.BinarySearch(other, n); !found {
			left = append(left, n)
		}
	}
	return left
}
