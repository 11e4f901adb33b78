package quota

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hybridMounts = `
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
90 25 0:36 /docker/ab /srv/jail/sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd
41 31 0:38 / @UNIFIED@ rw,relatime - cgroup2 cgroup2 rw,nsdelegate
91 25 0:38 / /mnt/with\040space rw - cgroup2 cgroup2 rw
garbage
1 2 - cgroup
`

func TestHierarchiesAreFoundByMountinfo(t *testing.T) {
	got, err := parseMounts(strings.NewReader(strings.ReplaceAll(hybridMounts, "@UNIFIED@", "/sys/fs/cgroup/unified")))
	if err != nil {
		t.Fatal(err)
	}
	want := mounts{unified: "/sys/fs/cgroup/unified", v1: map[string]string{
		"cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory",
		"freezer": "/sys/fs/cgroup/freezer", "pids": "/sys/fs/cgroup/pids", "name=systemd": "/sys/fs/cgroup/systemd",
	}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mounts{})); diff != "" {
		t.Error(diff)
	}
	g, err := openIn(got, "/ctctl-1")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{
		"": "/sys/fs/cgroup/unified/ctctl-1", "cpu": "/sys/fs/cgroup/cpu,cpuacct/ctctl-1", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/ctctl-1",
		"memory": "/sys/fs/cgroup/memory/ctctl-1", "freezer": "/sys/fs/cgroup/freezer/ctctl-1", "pids": "/sys/fs/cgroup/pids/ctctl-1",
		"name=systemd": "/sys/fs/cgroup/systemd/ctctl-1",
	}
	if diff := cmp.Diff(dirs, g.Dirs()); diff != "" {
		t.Error(diff)
	}
}

func TestAMountWithASpaceIsUnescaped(t *testing.T) {
	m, err := parseMounts(strings.NewReader(`91 25 0:38 / /mnt/with\040space rw - cgroup2 cgroup2 rw`))
	if err != nil || m.unified != "/mnt/with space" {
		t.Errorf("got %q, %v", m.unified, err)
	}
}

func TestLayoutNamesModeAndMissingControllers(t *testing.T) {
	with := func(controllers string) string {
		dir := t.TempDir()
		put(t, dir, map[string]string{"cgroup.controllers": controllers})
		return dir
	}
	for _, tc := range []struct {
		name    string
		m       mounts
		mode    string
		have    []string
		missing []string
	}{
		{"v2", mounts{unified: with("cpuset cpu io memory pids")}, ModeV2, []string{"cpu", "cpuset", "io", "memory", "pids"}, nil},
		{"v2 without memory", mounts{unified: with("cpu pids")}, ModeV2, []string{"cpu", "pids"}, []string{"memory"}},
		{
			"v2 with systemd's v1",
			mounts{unified: with("cpu memory pids"), v1: map[string]string{"name=systemd": "/x"}},
			ModeV2,
			[]string{"cpu", "memory", "pids"},
			nil,
		},
		{"hybrid", mounts{unified: with("pids"), v1: map[string]string{"memory": "/m"}}, ModeHybrid, []string{"memory", "pids"}, []string{"cpu"}},
		{"v1", mounts{v1: map[string]string{"pids": "/p"}}, ModeV1, []string{"pids"}, []string{"cpu", "memory", "freezer"}},
	} {
		l, err := tc.m.layout()
		if err != nil {
			t.Fatal(err)
		}
		if l.Mode != tc.mode || !cmp.Equal(l.Controllers, tc.have) || !cmp.Equal(l.Missing(), tc.missing) {
			t.Errorf("%s: %s %v missing %v, want %s %v missing %v", tc.name, l.Mode, l.Controllers, l.Missing(), tc.mode, tc.have, tc.missing)
		}
	}
	if _, err := (mounts{}).layout(); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("%v, want ErrNoCgroups", err)
	}
	if _, err := openIn(mounts{}, "/ctctl-1"); !errors.Is(err, ErrNoCgroups) {
		t.Errorf("%v, want ErrNoCgroups", err)
	}
}

func TestLeftoversAreOwnGroupsThatNobodyKeeps(t *testing.T) {
	v2, pids := t.TempDir(), t.TempDir()
	for _, d := range []string{v2 + "/ctctl-a", v2 + "/ctctl-b/ctctl-x", v2 + "/system.slice/ctctl-y", v2 + "/ctctl-B", pids + "/ctctl-b", pids + "/ctctl-c"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, v2, map[string]string{"ctctl-file": ""})
	m := mounts{unified: v2, v1: map[string]string{"pids": pids}}
	got, err := m.leftovers(func(name string) bool { return name == "/ctctl-a" })
	if diff := cmp.Diff([]string{"/ctctl-b", "/ctctl-c"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	all, err := m.leftovers(nil)
	if err != nil || len(all) != 3 {
		t.Errorf("keep nothing: %v, %v", all, err)
	}
}
