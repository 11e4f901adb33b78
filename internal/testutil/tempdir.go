package testutil

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/statefile"
)

// diskTemp is a directory on a real disk: /tmp is often a tmpfs, which has no
// loop devices with direct I/O, no id-mapped mounts on older kernels, and
// takes the memory that a checkpoint needs.
const diskTemp = "/var/tmp"

// base is where everything temporary of this process is; Main replaces it.
var base = diskTemp

// TempDir is like t.TempDir, but on a real disk, with mode 0700, and never
// removed across a mount point: a mount that the test has left behind fails
// the test instead of losing what is mounted.
func TempDir(t testing.TB) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == '*' {
			return '-'
		}
		return r
	}, t.Name())
	if len(name) > 40 { // Unix socket addresses below it have 108 bytes
		name = name[:40]
	}
	dir, err := os.MkdirTemp(base, name+"-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := statefile.RemoveTree(dir); err != nil {
			t.Errorf("temporary directory: %v", err)
		}
	})
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
