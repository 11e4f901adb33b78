package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/quota"
	"github.com/google/go-cmp/cmp"
)

func TestTheRecordOfCgroupsIsReadBack(t *testing.T) {
	dir := t.TempDir()
	if tree, err := readCgroups(dir); err != nil || len(tree.Dirs) != 0 {
		t.Errorf("of an image without one: %+v, %v", tree, err)
	}
	want := quota.Tree{IDs: quota.IDs{Base: 7, Size: 9}, Dirs: []quota.Dir{
		{Path: ".", Owner: quota.Owner{UID: 7, GID: 7}, Mode: 0o755},
		{Path: "a\\x2db", Attributes: map[string][]byte{"user.x": {0, 255}}, Settings: map[string]string{"pids.max": "3"}},
	}}
	if err := WriteCgroups(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := readCgroups(dir)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	file := filepath.Join(dir, CgroupFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"cut off": string(whole[:40]), "newer": `{"version":2,"dirs":[]}`, "with more in it": `{"version":1,"more":1}`, "no version": `{}`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readCgroups(dir); err == nil {
			t.Errorf("a record that is %s is taken", what)
		}
	}
}
