package netns

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// idMap says how the ids of a user namespace are called on the host, see
// user_namespaces(7).
type idMap []idRange

type idRange struct{ inside, outside, count uint64 }

func groupsOf(pid int) (idMap, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/gid_map", pid))
	if err != nil {
		return nil, err
	}
	var m idMap
	for line := range strings.Lines(string(b)) {
		var r idRange
		if _, err := fmt.Sscan(line, &r.inside, &r.outside, &r.count); err != nil {
			return nil, fmt.Errorf("read the group ids of process %d: %w", pid, err)
		}
		m = append(m, r)
	}
	return m, nil
}

// within translates a range of host ids, as ipv4/ping_group_range has them.
// What is not in the map, such as the empty range "1 0", stays.
func (m idMap) within(value string) string {
	return m.translate(value, func(r idRange) (from, to uint64) { return r.outside, r.inside })
}

// outside is the reverse of within.
func (m idMap) outside(value string) string {
	return m.translate(value, func(r idRange) (from, to uint64) { return r.inside, r.outside })
}

func (m idMap) translate(value string, ends func(idRange) (from, to uint64)) string {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return value
	}
	low, err1 := strconv.ParseUint(fields[0], 10, 32)
	high, err2 := strconv.ParseUint(fields[1], 10, 32)
	if err1 != nil || err2 != nil || low > high {
		return value
	}
	for _, r := range m {
		from, to := ends(r)
		if low >= from && high < from+r.count {
			return fmt.Sprintf("%d\t%d", low-from+to, high-from+to)
		}
	}
	return value
}

// hasOwnUsers says whether the process is in another user namespace than the
// caller.
func hasOwnUsers(pid int) (bool, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/ns/user", pid))
	if err != nil {
		return false, err
	}
	ours, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return false, err
	}
	return !os.SameFile(theirs, ours), nil
}
