package statefile_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/testutil"
)

// A subvolume is no mount point, yet it may be a container's whole root.
func TestRemoveTreeRefusesABtrfsSubvolume(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs, testutil.Tool("btrfs"), testutil.Tool("mount"))
	dir := testutil.TempDir(t)
	image, top := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	err := errors.Join(os.Mkdir(top, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 128<<20))
	if err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.btrfs", "-q", image)
	command(t, "mount", "-o", "loop", image, top)
	t.Cleanup(func() {
		if err := unix.Unmount(top, 0); err != nil {
			t.Error(err)
		}
	})
	tree := filepath.Join(top, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "a"), 0o700); err != nil {
		t.Fatal(err)
	}
	subvolume := filepath.Join(tree, "a", "sub")
	command(t, "btrfs", "subvolume", "create", subvolume)
	precious := filepath.Join(subvolume, "data")
	for _, path := range []string{precious, filepath.Join(tree, "first")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{tree, subvolume} {
		if err := statefile.RemoveTree(path); !errors.Is(err, statefile.ErrMounted) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	for _, path := range []string{precious, filepath.Join(tree, "first")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	command(t, "btrfs", "subvolume", "delete", subvolume)
	if err := statefile.RemoveTree(tree); err != nil {
		t.Error(err)
	}
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
