package criu

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTheCgroupYardHoldsEveryHierarchyOrIsNotUsed(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"cpu,cpuacct", "memory", "systemd", "unified"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "cgroup.procs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "pids"), 0o755); err != nil { // no hierarchy
		t.Fatal(err)
	}
	for membership, want := range map[string]string{
		"3:cpu,cpuacct:/\n2:memory:/a\n1:name=systemd:/\n0::/x:y\n": root,
		"2:memory:/a\n1:pids:/\n":                                   "",
		"1:blkio:/\n":                                               "",
		"nonsense":                                                  "",
	} {
		if got := cgroupYard(root, membership); got != want {
			t.Errorf("%q: want %q, got %q", membership, want, got)
		}
	}
}
