package quota

import (
	"fmt"
	"time"
)

// Usage is what a group uses. A figure whose controller the host lacks is 0.
type Usage struct {
	MemoryBytes  int64         // charged to the group, page cache included: what the limit bounds
	CacheBytes   int64         // part of it that the kernel can drop
	PIDs         int64         // tasks
	CPUTime      time.Duration // since the group was made
	OOMKills     int64         // processes killed because the memory limit was reached
	ForksRefused int64         // forks that failed because the pids limit was reached
}

// Usage reads the figures. ErrNotFound if the group does not exist.
func (g Group) Usage() (Usage, error) {
	if err := g.check(); err != nil {
		return Usage{}, err
	}
	if !g.Exists() {
		return Usage{}, fmt.Errorf("read usage: %s: %w", g.name, ErrNotFound)
	}
	var u Usage
	for _, read := range [...]func(*Usage) error{g.memoryUsage, g.pidsUsage, g.cpuUsage} {
		if err := read(&u); err != nil && !vanished(err) {
			return Usage{}, fmt.Errorf("read usage of %s: %w", g.name, err)
		}
	}
	return u, nil
}

// dirOf returns the directory where the controller's files are, and whether
// that is a v1 hierarchy; "" if the controller is nowhere.
func (g Group) dirOf(controller string) (dir string, v1 bool) {
	if point, ok := g.mounts.v1[controller]; ok {
		return point + g.name, true
	}
	return g.Unified(), false
}

func (g Group) memoryUsage(u *Usage) error {
	dir, v1 := g.dirOf("memory")
	if dir == "" {
		return nil
	}
	current, events := "/memory.current", "/memory.events"
	if v1 {
		current, events = "/memory.usage_in_bytes", "/memory.oom_control"
	}
	var err error
	if u.MemoryBytes, err = readInt(dir + current); err != nil {
		return err
	}
	if u.CacheBytes, err = cacheBytes(dir, v1); err != nil {
		return err
	}
	keys, err := readKeys(dir + events)
	u.OOMKills = keys["oom_kill"]
	return err
}

// cacheBytes counts file pages on the LRU lists; pages of tmpfs are on the
// anonymous lists and cannot be dropped.
func cacheBytes(dir string, v1 bool) (int64, error) {
	keys, err := readKeys(dir + "/memory.stat")
	if v1 { // with the groups below
		return keys["total_active_file"] + keys["total_inactive_file"], err
	}
	return keys["active_file"] + keys["inactive_file"], err
}

func (g Group) pidsUsage(u *Usage) error {
	dir, _ := g.dirOf("pids")
	if dir == "" {
		return nil
	}
	var err error
	if u.PIDs, err = readInt(dir + "/pids.current"); err != nil {
		return err
	}
	keys, err := readKeys(dir + "/pids.events")
	u.ForksRefused = keys["max"]
	return err
}

// cpuUsage: cpu.stat of cgroup2 has usage_usec without any controller.
func (g Group) cpuUsage(u *Usage) error {
	if point, ok := g.mounts.v1["cpuacct"]; ok {
		n, err := readInt(point + g.name + "/cpuacct.usage")
		u.CPUTime = time.Duration(n)
		return err
	}
	if g.Unified() == "" {
		return nil
	}
	keys, err := readKeys(g.Unified() + "/cpu.stat")
	u.CPUTime = time.Duration(keys["usage_usec"]) * time.Microsecond
	return err
}
