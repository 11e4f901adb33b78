package dir_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/dir"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got error %v, want one that is %q", err, target)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func TestOpenRemovesLeftoversButNotWhatIsBeingMade(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	d := open(t, root)
	must(t, d.Create(t.Context(), "kept", storage.CreateOptions{}))
	must(t, os.MkdirAll(filepath.Join(root, "volumes/dead.x.tmp/dir"), 0o700))
	must(t, os.Mkdir(filepath.Join(root, "volumes/alive.x.tmp"), 0o700))
	alive, err := os.Open(filepath.Join(root, "volumes/alive.x.tmp"))
	must(t, err)
	must(t, unix.Flock(int(alive.Fd()), unix.LOCK_EX))
	open(t, root)
	want := []string{".lock", ".meta", "alive.x.tmp", "kept"}
	if diff := cmp.Diff(want, entries(t, filepath.Join(root, "volumes"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must(t, alive.Close())
	open(t, root)
	want = []string{".lock", ".meta", "kept"}
	if diff := cmp.Diff(want, entries(t, filepath.Join(root, "volumes"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALeftoverThatCanNotBeRemovedIsLoggedAndNothingMore(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	open(t, root)
	precious := testutil.TempDir(t)
	must(t, os.WriteFile(filepath.Join(precious, "f"), nil, 0o600))
	point := filepath.Join(root, "volumes/dead.x.tmp/mnt")
	must(t, os.MkdirAll(point, 0o700))
	must(t, unix.Mount(precious, point, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(point, 0)) })
	var log bytes.Buffer
	_, err := dir.Open(t.Context(), dir.Options{Root: root, Log: slog.New(slog.NewTextHandler(&log, nil))})
	must(t, err)
	if _, err := os.Lstat(filepath.Join(precious, "f")); err != nil || !strings.Contains(log.String(), "dead.x.tmp") {
		t.Errorf("error %v, log %q", err, log.String())
	}
}

func TestAVolumeWithAMountInsideIsNeitherCopiedNorDeleted(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	d := open(t, root)
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	must(t, os.MkdirAll(filepath.Join(d.Path("a"), "dir/mnt"), 0o755))
	must(t, d.Snapshot(t.Context(), "a", "s", 9))
	for _, name := range []string{"a", "s"} {
		point := filepath.Join(d.Path(name), "dir/mnt")
		must(t, unix.Mount(testutil.TempDir(t), point, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(point, 0)) })
		wantIs(t, d.Delete(t.Context(), name), storage.ErrInUse)
		wantIs(t, d.Create(t.Context(), "b", storage.CreateOptions{Origin: name}), storage.ErrInUse)
	}
	got, err := d.List(t.Context())
	must(t, err)
	want := []storage.Volume{{Name: "a"}, {Name: "s", ReadOnly: true, Group: 9}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{".lock", ".meta", "a", "s"}, entries(t, filepath.Join(root, "volumes"))); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestALinkInPlaceOfAVolumeIsNotFollowed(t *testing.T) {
	testutil.Require(t, testutil.Root)
	d := open(t, testutil.TempDir(t))
	outside := testutil.TempDir(t)
	must(t, os.WriteFile(filepath.Join(outside, "f"), nil, 0o600))
	must(t, os.Symlink(outside, d.Path("link")))
	if err := d.Create(t.Context(), "a", storage.CreateOptions{Origin: "link"}); err == nil {
		t.Error("it is copied")
	}
	if err := d.Delete(t.Context(), "link"); err == nil {
		t.Error("it is deleted")
	}
	if _, err := os.Lstat(filepath.Join(outside, "f")); err != nil {
		t.Error(err)
	}
}

func TestATreeNestedWithoutBoundIsRefused(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	d := open(t, root)
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	must(t, os.MkdirAll(filepath.Join(d.Path("a"), strings.Repeat("d/", 1100)), 0o755))
	if err := d.Create(t.Context(), "b", storage.CreateOptions{Origin: "a"}); err == nil || len(err.Error()) > 400 {
		t.Errorf("got %v", err)
	}
	must(t, d.Delete(t.Context(), "a"))
	if diff := cmp.Diff([]string{".lock", ".meta"}, entries(t, filepath.Join(root, "volumes"))); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// dyingContext is cancelled after it was asked n times.
type dyingContext struct {
	context.Context
	left *int
}

func (c dyingContext) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestACopyThatIsCancelledAnywhereLeavesNothing(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	d := open(t, root)
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	must(t, os.MkdirAll(filepath.Join(d.Path("a"), "x/y"), 0o755))
	for _, name := range []string{"x/y/f", "x/g", "h"} {
		must(t, os.WriteFile(filepath.Join(d.Path("a"), name), []byte("content"), 0o600))
	}
	for n := 0; ; n++ {
		left := n
		err := d.Create(dyingContext{t.Context(), &left}, "b", storage.CreateOptions{Origin: "a"})
		if err == nil {
			if n < 5 {
				t.Errorf("only %d points to cancel at", n)
			}
			break
		}
		wantIs(t, err, context.Canceled)
		if diff := cmp.Diff([]string{".lock", ".meta", "a"}, entries(t, filepath.Join(root, "volumes"))); diff != "" {
			t.Fatalf("cancelled at %d (-want +got):\n%s", n, diff)
		}
	}
}
