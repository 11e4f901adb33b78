package quota

import (
	"os"
	"testing"
)

func TestControllersAreKeptEnabledWhileThereIsAGroup(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{
		"cgroup.controllers": "cpuset cpu io memory pids hugetlb", "cgroup.subtree_control": "cpu cpuset io memory",
		"ctctl.keep/cgroup.subtree_control": "cpu cpuset io pids",
	})
	g := openFake(t, mounts{v1: map[string]string{}, unified: dir})
	if err := g.Make(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"/cgroup.subtree_control": "+pids", "/ctctl.keep/cgroup.subtree_control": "+memory"} {
		if got := get(t, dir+file); got != want {
			t.Errorf("%s was written %q, want %q", file, got, want)
		}
	}
	// In the kernel's file system the files go with the directory.
	if err := os.Remove(dir + "/ctctl.keep/cgroup.subtree_control"); err != nil {
		t.Fatal(err)
	}
	other := Group{name: "/ctctl-other", mounts: g.mounts}
	if err := os.Mkdir(other.Unified(), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		remove Group
		kept   bool
	}{{g, true}, {other, false}} {
		if err := step.remove.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := exists(dir + keepName); got != step.kept {
			t.Errorf("after %s was removed: kept is %t, want %t", step.remove.name, got, step.kept)
		}
	}
}

func TestNothingIsKeptWhereTheControllersAreInV1(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"cgroup.controllers": "hugetlb", "cgroup.subtree_control": ""})
	g := openFake(t, mounts{v1: map[string]string{}, unified: dir})
	if err := g.Make(); err != nil || exists(dir+keepName) {
		t.Errorf("kept: %t, %v", exists(dir+keepName), err)
	}
}
