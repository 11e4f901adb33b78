package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// ownGroup is a real group whose container has divided its own cgroup.
func ownGroup(t *testing.T, uid uint32) Group {
	t.Helper()
	g := realGroup(t, hostMounts(t))
	if g.Unified() == "" {
		t.Skip("needs cgroup2")
	}
	if err := g.Delegate(uid, uid); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestATreeIsMadeAgainInAnotherRangeOfIDs(t *testing.T) {
	const base, other = 1879048192, 1879113728
	g := ownGroup(t, base)
	for _, d := range []string{"init.scope", "user.slice", "user.slice/user-1.slice", "thread\\x2ded.slice"} {
		if err := os.Mkdir(filepath.Join(g.OwnDir(), d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	own := g.OwnDir()
	if err := chownFiles(own+"/user.slice", Owner{base, base}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"", "cgroup.procs"} {
		if err := os.Chown(filepath.Join(own, "user.slice/user-1.slice", f), base+1000, base+100); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(own+"/user.slice", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lsetxattr(own+"/user.slice", "trusted.delegate", []byte("1\x00\xff"), 0); err != nil {
		t.Fatal(err)
	}
	for file, value := range map[string]string{
		"thread\\x2ded.slice/cgroup.type": "threaded", "user.slice/cgroup.max.descendants": "7", "user.slice/user-1.slice/cgroup.freeze": "1",
	} {
		if err := writeText(filepath.Join(own, file), value); err != nil {
			t.Fatal(err)
		}
	}
	from, to := IDs{base, 65536}, IDs{other, 65536}
	tree, err := g.Tree(from)
	want := wantTree(base)
	if diff := cmp.Diff(want, withoutControllers(tree)); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}

	var stored Tree
	if b, err := json.Marshal(tree); err != nil || json.Unmarshal(b, &stored) != nil {
		t.Fatalf("through JSON: %s, %v", b, err)
	}
	clone := realGroup(t, hostMounts(t))
	stored.Dirs[0], stored.Dirs[3] = stored.Dirs[3], stored.Dirs[0]
	for range 2 { // making it twice is fine
		if err := clone.MakeTree(stored, to); err != nil {
			t.Fatal(err)
		}
	}
	if refused, err := clone.SetTree(stored); err != nil || len(refused) > 0 {
		t.Fatal(refused, err)
	}
	got, err := clone.Tree(to)
	if diff := cmp.Diff(wantTree(other), withoutControllers(got)); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

// wantTree is what the test above makes, with the container's root being root.
func wantTree(root uint32) Tree {
	own, user := Owner{root, root}, Owner{root + 1000, root + 100}
	return Tree{IDs: IDs{root, 65536}, Dirs: []Dir{
		{Path: ".", Owner: own, Mode: 0o755, Given: map[string]Owner{"cgroup.procs": own, "cgroup.threads": own, "cgroup.subtree_control": own}},
		{Path: "init.scope", Mode: 0o755},
		{Path: "thread\\x2ded.slice", Mode: 0o755, Threaded: true},
		{
			Path: "user.slice", Mode: 0o750, Maker: own,
			Settings: map[string]string{"cgroup.max.descendants": "7"}, Attributes: map[string][]byte{"trusted.delegate": []byte("1\x00\xff")},
		},
		{Path: "user.slice/user-1.slice", Owner: user, Mode: 0o755, Given: map[string]Owner{"cgroup.procs": user}, Frozen: true},
	}}
}

func withoutControllers(tree Tree) Tree {
	var plain []Dir
	for _, d := range tree.Dirs {
		d.Controllers = nil
		plain = append(plain, d)
	}
	tree.Dirs = plain
	return tree
}

func TestANameOfAnyBytesIsKept(t *testing.T) {
	for _, name := range []Path{"a", "a\\x2db", "\xff\x01/\"", "größe", "."} {
		b, err := json.Marshal(name)
		var got Path
		if err != nil || json.Unmarshal(b, &got) != nil || got != name {
			t.Errorf("%q became %s and %q, %v", string(name), b, string(got), err)
		}
	}
}

func TestMoreCgroupsThanCanBeKeptAreRefused(t *testing.T) {
	g := fakeV2(t)
	put(t, g.OwnDir(), map[string]string{"cgroup.stat": fmt.Sprintf("nr_descendants %d\nnr_dying_descendants 0", MostCgroups)})
	if err := g.CheckTree(); !errors.Is(err, ErrTooManyCgroups) {
		t.Errorf("CheckTree: %v", err)
	}
	put(t, g.OwnDir(), map[string]string{"cgroup.stat": fmt.Sprintf("nr_descendants %d", MostCgroups-1)})
	if err := g.CheckTree(); err != nil {
		t.Errorf("CheckTree: %v", err)
	}
	for i := range MostCgroups + 1 {
		fakeDir(t, fmt.Sprintf("%s/%d", g.OwnDir(), i))
	}
	fakeDir(t, g.OwnDir())
	if _, err := g.Tree(IDs{}); !errors.Is(err, ErrTooManyCgroups) {
		t.Errorf("Tree: %v", err)
	}
	if err := g.MakeTree(Tree{Dirs: make([]Dir, MostCgroups+1)}, IDs{}); !errors.Is(err, ErrTooManyCgroups) {
		t.Errorf("MakeTree: %v", err)
	}
}

// fakeDir is a cgroup as Tree reads it.
func fakeDir(t *testing.T, path string) {
	t.Helper()
	put(t, path, map[string]string{"cgroup.controllers": "memory", "cgroup.subtree_control": "", "cgroup.procs": ""})
}

func TestTheKernelHoldsTheContainerToItsCgroups(t *testing.T) {
	g := ownGroup(t, 0)
	if n := get(t, g.Unified()+"/cgroup.max.descendants"); n != fmt.Sprint(MostCgroups) {
		t.Errorf("cgroup.max.descendants is %s", n)
	}
	path := g.OwnDir()
	var err error
	for i := 0; err == nil && i < 100; i++ {
		path += "/d"
		err = os.Mkdir(path, 0o755)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("cgroups of any depth: %v", err)
	}
}

func TestControllersAreEnabledInTheTreeAndMissingOnesNamed(t *testing.T) {
	g := fakeV2(t)
	put(t, g.OwnDir(), map[string]string{
		"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "",
		"a/cgroup.controllers": "cpu memory", "a/cgroup.subtree_control": "memory",
	})
	missing, err := g.EnableTree(Tree{Dirs: []Dir{
		{Path: "a", Controllers: []string{"memory", "cpu", "io"}},
		{Path: ".", Controllers: []string{"pids", "hugetlb"}},
	}}, IDs{})
	if diff := cmp.Diff([]string{"hugetlb", "io"}, missing); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for file, want := range map[string]string{
		"cgroup.subtree_control": "+cpu +memory +pids", "init/cgroup.subtree_control": "+pids", "init/a/cgroup.subtree_control": "+cpu",
	} {
		if got := get(t, g.Unified()+"/"+file); got != want {
			t.Errorf("%s got %q, want %q", file, got, want)
		}
	}
}

func TestWhatWasSetInsideIsRecordedAndSetAgain(t *testing.T) {
	g := fakeV2(t)
	files := map[string]string{
		"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "", "cgroup.procs": "",
		"cpu.weight": "0", "cpu.idle": "1", "memory.max": "1048576", "memory.high": "max", "pids.max": "12", "io.max": "8:0 rbps=1",
		"memory.min": "0", "cpu.max": "5000 100000",
	}
	fakeDir(t, g.OwnDir())
	put(t, g.OwnDir()+"/a", files)
	tree, err := g.Tree(IDs{})
	want := map[string]string{"cpu.idle": "1", "memory.max": "1048576", "pids.max": "12", "cpu.max": "5000 100000"}
	if diff := cmp.Diff(want, tree.Dirs[1].Settings); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
	for file := range want {
		put(t, g.OwnDir()+"/a", map[string]string{file: ""})
	}
	tree.Dirs[1].Settings["io.latency"] = "8:0 target=1"
	tree.Dirs[1].Settings["../memory.max"] = "1"
	refused, err := g.SetTree(tree)
	if err != nil || len(refused) != 1 {
		t.Errorf("refused %q, %v", refused, err)
	}
	for file, value := range want {
		if got := get(t, g.OwnDir()+"/a/"+file); got != value {
			t.Errorf("%s is %q, want %q", file, got, value)
		}
	}
	if got := get(t, g.OwnDir()+"/cgroup.controllers"); got != "memory" {
		t.Errorf("the top was written to: %q", got)
	}
}

func TestATreeFromElsewhereCannotLeadOut(t *testing.T) {
	g := fakeV2(t)
	for _, path := range []Path{"../x", "/etc", "a/../../x", "", "a/../.."} {
		tree := Tree{Dirs: []Dir{{Path: "."}, {Path: path, Mode: 0o755, Controllers: []string{"cpu"}}}}
		if err := g.MakeTree(tree, IDs{}); err == nil {
			t.Errorf("MakeTree takes %q", path)
		}
		if _, err := g.EnableTree(tree, IDs{}); err == nil {
			t.Errorf("EnableTree takes %q", path)
		}
		if _, err := g.SetTree(tree); err == nil {
			t.Errorf("SetTree takes %q", path)
		}
		if err := g.Add(1<<30, string(path)); path != "" && err == nil {
			t.Errorf("Add takes %q", path)
		}
	}
	if exists(g.mounts.unified+"/x") || exists(g.Unified()+"/x") {
		t.Error("a directory was made outside")
	}
	stolen := Tree{Dirs: []Dir{{Path: ".", Given: map[string]Owner{"memory.max": {UID: 5}}}}}
	if err := g.MakeTree(stolen, IDs{}); err == nil {
		t.Error("a record gives a limit away")
	}
}

func TestOnlyIDsOfTheContainerAreTaken(t *testing.T) {
	from, to, host := IDs{1000, 100}, IDs{5000, 50}, IDs{}
	for _, tc := range []struct {
		s    shift
		id   uint32
		want uint32
		ok   bool
	}{
		{shift{from, to}, 0, 0, true},
		{shift{from, to}, 1000, 5000, true},
		{shift{from, to}, 1049, 5049, true},
		{shift{from, to}, 1050, 0, false}, // the range is smaller now
		{shift{from, to}, 999, 0, false},
		{shift{from, to}, 1<<32 - 1, 0, false},
		{shift{host, host}, 1000, 1000, true},
		{shift{from, host}, 1000, 0, false},
		{shift{host, to}, 0, 0, false},
	} {
		got, err := tc.s.id(tc.id)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%+v of %d: %d, %v", tc.s, tc.id, got, err)
		}
	}
}
