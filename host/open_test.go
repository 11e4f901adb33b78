package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

// openIn opens a host of plain directories below dir and closes it.
func openIn(t *testing.T, dir string) (*Host, error) {
	t.Helper()
	h, err := Open(t.Context(), Options{StateRoot: filepath.Join(dir, "state"), RunRoot: filepath.Join(dir, "run")})
	if err == nil {
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return h, err
}

func TestAStorageThatCannotBeOpenedIsNotChosenForEver(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	t.Setenv("CTCTL_STORAGE", "floppy")
	if _, err := openIn(t, dir); err == nil {
		t.Fatal("no error with a storage that does not exist")
	}
	t.Setenv("CTCTL_STORAGE", "dir")
	if _, err := openIn(t, dir); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CTCTL_STORAGE", "btrfs")
	h, err := openIn(t, dir)
	if err != nil || h.Settings.Storage != "dir" {
		t.Errorf("what was chosen did not stay: %+v, %v", h, err)
	}
}

func TestTheRootsHaveTheirModesWhateverTheUmask(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	t.Setenv("CTCTL_STORAGE", "dir")
	old := unix.Umask(0o077)
	_, err := openIn(t, dir)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"state": 0o700, "run": 0o711} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %o", name, fi, err, want)
		}
	}
}

func TestARunRootThatIsThereKeepsItsMode(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	t.Setenv("CTCTL_STORAGE", "dir")
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openIn(t, dir); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(run); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("got %v %v", fi, err)
	}
}

func TestAHostOpensWithoutAUsableCRIUAndSaysWhyWhenItIsNeeded(t *testing.T) {
	testutil.Require(t, testutil.Root)
	t.Setenv("CTCTL_STORAGE", "dir")
	old := filepath.Join(testutil.TempDir(t), "criu")
	if err := os.WriteFile(old, []byte("#!/bin/sh\necho Version: 3.17.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{old: criu.ErrTooOld, "/absent/criu": criu.ErrNotInstalled} {
		t.Setenv(criu.EnvBinary, path)
		h, err := openIn(t, testutil.TempDir(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.CRIU.Version(t.Context()); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

func TestRepairOfANewHostHasNothingToDo(t *testing.T) {
	testutil.Require(t, testutil.Root)
	t.Setenv("CTCTL_STORAGE", "dir")
	h, err := openIn(t, testutil.TempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	if done, err := h.Repair(t.Context(), ""); err != nil || len(done) > 0 {
		t.Errorf("got %v, %v", done, err)
	}
}

func TestRepairDeletesNothingWhenItIsNotKnownWhichContainersThereAre(t *testing.T) {
	testutil.Require(t, testutil.Root)
	t.Setenv("CTCTL_STORAGE", "dir")
	dir, ctx := testutil.TempDir(t), t.Context()
	h, err := openIn(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Volumes.Create(ctx, "c-0123456789abcdef-1", storage.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "state", "containers")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Repair(ctx, ""); err == nil {
		t.Error("no error though the directory of containers is missing")
	}
	if _, err := os.Stat(h.Volumes.Path("c-0123456789abcdef-1")); err != nil {
		t.Errorf("the volume is gone: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "state", "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	if done, err := h.Repair(ctx, ""); err != nil || len(done) != 1 {
		t.Errorf("with an empty directory of containers: got %v, %v", done, err)
	}
}

func TestARunRootBelongsToOneStateRoot(t *testing.T) {
	testutil.Require(t, testutil.Root)
	t.Setenv("CTCTL_STORAGE", "dir")
	dir := testutil.TempDir(t)
	if _, err := openIn(t, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := openIn(t, dir); err != nil {
		t.Errorf("its own state root is refused: %v", err)
	}
	other := Options{StateRoot: filepath.Join(dir, "other"), RunRoot: filepath.Join(dir, "run")}
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrRunRoot) {
		t.Errorf("want ErrRunRoot, got %v", err)
	}
	if err := statefile.RemoveTree(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	h, err := Open(t.Context(), other)
	if err != nil {
		t.Fatalf("the first is gone, the other refused all the same: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
