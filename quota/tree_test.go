package quota

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestATreeIsMadeAgainWithShiftedOwners(t *testing.T) {
	g := realGroup(t, hostMounts(t))
	if g.Unified() == "" {
		t.Skip("needs cgroup2")
	}
	const base, shift = 1879048192, 65536
	for _, d := range []string{"init.scope", "user.slice", "user.slice/user-1.slice"} {
		if err := os.Mkdir(filepath.Join(g.Unified(), d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range delegated {
		if err := os.Chown(g.Unified()+"/user.slice/user-1.slice"+f, base+1000, base+100); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(g.Unified()+"/user.slice", 0o750); err != nil {
		t.Fatal(err)
	}
	tree, err := g.Tree()
	want := []Dir{
		{Path: ".", Mode: 0o755},
		{Path: "init.scope", Mode: 0o755},
		{Path: "user.slice", Mode: 0o750},
		{Path: "user.slice/user-1.slice", UID: base + 1000, GID: base + 100, Mode: 0o755},
	}
	if diff := cmp.Diff(want, withoutControllers(tree)); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}

	clone := realGroup(t, hostMounts(t))
	for range 2 { // making it twice is fine
		if err := clone.MakeTree([]Dir{tree[3], tree[1], tree[2], tree[0]}, shift); err != nil {
			t.Fatal(err)
		}
	}
	got, err := clone.Tree()
	want[3].UID += shift
	want[3].GID += shift
	if diff := cmp.Diff(want, withoutControllers(got)); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, f := range delegated {
		var st unix.Stat_t
		path := clone.Unified() + "/user.slice/user-1.slice" + f
		if err := unix.Stat(path, &st); err != nil || st.Uid != base+1000+shift || st.Gid != base+100+shift {
			t.Errorf("%s has owner %d:%d, %v", path, st.Uid, st.Gid, err)
		}
	}
}

func withoutControllers(tree []Dir) []Dir {
	var plain []Dir
	for _, d := range tree {
		d.Controllers = nil
		plain = append(plain, d)
	}
	return plain
}

func TestControllersAreEnabledInTheTreeAndMissingOnesNamed(t *testing.T) {
	g := fakeV2(t)
	put(t, g.Unified(), map[string]string{"a/cgroup.controllers": "cpu memory", "a/cgroup.subtree_control": "memory"})
	missing, err := g.EnableTree([]Dir{
		{Path: "a", Controllers: []string{"memory", "cpu", "io"}},
		{Path: ".", Controllers: []string{"pids", "hugetlb"}},
	})
	if diff := cmp.Diff([]string{"hugetlb", "io"}, missing); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for file, want := range map[string]string{"cgroup.subtree_control": "+pids", "a/cgroup.subtree_control": "+cpu"} {
		if got := get(t, g.Unified()+"/"+file); got != want {
			t.Errorf("%s got %q, want %q", file, got, want)
		}
	}
	tree, err := g.Tree()
	if err != nil || len(tree) != 2 || !cmp.Equal(tree[1].Controllers, []string{"+cpu"}) {
		t.Errorf("Tree: %+v, %v", tree, err)
	}
}

func TestATreeFromElsewhereCannotLeadOut(t *testing.T) {
	g := fakeV2(t)
	for _, path := range []string{"../x", "/etc", "a/../../x", "", "a/../.."} {
		tree := []Dir{{Path: path, Mode: 0o755, Controllers: []string{"cpu"}}}
		if err := g.MakeTree(tree, 0); err == nil {
			t.Errorf("MakeTree takes %q", path)
		}
		if _, err := g.EnableTree(tree); err == nil {
			t.Errorf("EnableTree takes %q", path)
		}
		if err := g.Add(1<<30, path); path != "" && err == nil {
			t.Errorf("Add takes %q", path)
		}
	}
	if exists(g.mounts.unified + "/x") {
		t.Error("a directory was made outside")
	}
}

func TestShiftedRefusesWhatIsNoID(t *testing.T) {
	for _, tc := range []struct {
		id    int
		shift int64
		want  int
		ok    bool
	}{
		{0, 5, 0, true},
		{0, -5, 0, true},
		{1000, 5, 1005, true},
		{1000, -999, 1, true},
		{1000, -1000, 0, false},
		{1000, -2000, 0, false},
		{-1, 5, 0, false},
		{1, 1<<32 - 2, 0, false},
		{1, 1<<32 - 3, 1<<32 - 2, true},
		{1, 1 << 40, 0, false},
	} {
		got, err := shifted(tc.id, tc.shift)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("shifted(%d, %d) = %d, %v", tc.id, tc.shift, got, err)
		}
	}
}
