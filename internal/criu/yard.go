package criu

import (
	"os"
	"path/filepath"
	"strings"
)

// cgroupRoot is where distributions mount the cgroup hierarchies.
const cgroupRoot = "/sys/fs/cgroup"

// cgroupYard finds a directory that holds every hierarchy under the name CRIU
// looks for, so that it need not mount each of them anew while the tasks stand
// still (6 to 17 ms with nine hierarchies). "" lets CRIU do so.
func cgroupYard(root, membership string) string {
	for line := range strings.Lines(membership) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			return ""
		}
		name := strings.TrimPrefix(parts[1], "name=")
		if name == "" {
			name = "unified"
		}
		if !isCgroupMount(filepath.Join(root, name)) {
			return ""
		}
	}
	return root
}

// isCgroupMount looks for the file that every cgroup has, directories beside the
// hierarchies not.
func isCgroupMount(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
	return err == nil
}

func ownCgroupYard() string {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || len(b) == 0 {
		return ""
	}
	return cgroupYard(cgroupRoot, string(b))
}
