package storagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

func emptyVolume(t *testing.T, v storage.Volumes) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	create(t, v, "a", "", 0)
	got := describe(t, v.Path("a"))
	if len(got) != 1 {
		t.Errorf("it is not empty: %v", got)
	}
	if top := got["."]; top.Mode != unix.S_IFDIR|0o755 || top.UID != 0 || top.GID != 0 {
		t.Errorf("got mode %o of %d:%d, want 40755 of 0:0", top.Mode, top.UID, top.GID)
	}
}

func copyEquals(t *testing.T, v storage.Volumes) {
	create(t, v, "origin", "", 0)
	populate(t, v.Path("origin"))
	want := describe(t, v.Path("origin"))
	create(t, v, "copy", "origin", 0)
	if diff := cmp.Diff(want, describe(t, v.Path("copy"))); diff != "" {
		t.Errorf("copy differs (-origin +copy):\n%s", diff)
	}
	if diff := cmp.Diff(want, describe(t, v.Path("origin"))); diff != "" {
		t.Errorf("copying changed the origin (-before +after):\n%s", diff)
	}
}

func snapshotEquals(t *testing.T, v storage.Volumes) {
	create(t, v, "source", "", 0)
	populate(t, v.Path("source"))
	want := describe(t, v.Path("source"))
	must(t, v.Snapshot(t.Context(), "source", "snap", 0))
	if diff := cmp.Diff(want, describe(t, v.Path("snap"))); diff != "" {
		t.Errorf("snapshot differs (-source +snapshot):\n%s", diff)
	}
}

func copyIndependent(t *testing.T, v storage.Volumes) {
	create(t, v, "origin", "", 0)
	populate(t, v.Path("origin"))
	create(t, v, "copy", "origin", 0)
	origin := describe(t, v.Path("origin"))
	scribble(t, v.Path("copy"))
	if diff := cmp.Diff(origin, describe(t, v.Path("origin"))); diff != "" {
		t.Errorf("writing the copy changed the origin (-before +after):\n%s", diff)
	}
	if cmp.Equal(origin, describe(t, v.Path("copy"))) {
		t.Error("writing the copy did not change it")
	}
	changed := describe(t, v.Path("copy"))
	must(t, v.Delete(t.Context(), "origin"))
	if diff := cmp.Diff(changed, describe(t, v.Path("copy"))); diff != "" {
		t.Errorf("deleting the origin changed the copy (-before +after):\n%s", diff)
	}
}

func snapshotFrozen(t *testing.T, v storage.Volumes) {
	create(t, v, "source", "", 0)
	populate(t, v.Path("source"))
	must(t, v.Snapshot(t.Context(), "source", "snap", 0))
	want := describe(t, v.Path("snap"))
	scribble(t, v.Path("source"))
	must(t, v.Delete(t.Context(), "source"))
	wantAbsent(t, v, "source")
	if diff := cmp.Diff(want, describe(t, v.Path("snap"))); diff != "" {
		t.Errorf("the snapshot changed (-before +after):\n%s", diff)
	}
}

func copyOfSnapshot(t *testing.T, v storage.Volumes) {
	create(t, v, "source", "", 0)
	write(t, in(v, "source", "f"), "one")
	must(t, v.Snapshot(t.Context(), "source", "snap", 0))
	must(t, v.Snapshot(t.Context(), "snap", "snap2", 0))
	create(t, v, "copy", "snap2", 0)
	write(t, in(v, "copy", "f"), "two")
	wantContent(t, in(v, "copy", "f"), "two")
	wantContent(t, in(v, "snap", "f"), "one")
	for _, got := range listed(t, v) {
		if want := strings.HasPrefix(got.Name, "snap"); got.ReadOnly != want {
			t.Errorf("%s: read-only %v, want %v", got.Name, got.ReadOnly, want)
		}
	}
}

func deepTree(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	deep := strings.Repeat("directory/", 150)
	must(t, os.MkdirAll(in(v, "a", deep), 0o755))
	write(t, in(v, "a", deep, "f"), "deep")
	create(t, v, "b", "a", 0)
	wantContent(t, in(v, "b", deep, "f"), "deep")
	must(t, v.Delete(t.Context(), "a"))
	wantAbsent(t, v, "a")
}

func deleteAbsent(t *testing.T, v storage.Volumes) {
	must(t, v.Delete(t.Context(), "never"))
	create(t, v, "a", "", 0)
	must(t, v.Delete(t.Context(), "a"))
	must(t, v.Delete(t.Context(), "a"))
	wantAbsent(t, v, "a")
}

func deleteThenCreate(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	write(t, in(v, "a", "f"), "old")
	must(t, v.Snapshot(t.Context(), "a", "s", 0))
	for _, name := range []string{"a", "s"} {
		must(t, v.Delete(t.Context(), name))
		create(t, v, name, "", 0)
		if got := describe(t, v.Path(name)); len(got) != 1 {
			t.Errorf("the new volume %s is not empty: %v", name, got)
		}
	}
	for _, got := range listed(t, v) {
		if got.ReadOnly {
			t.Errorf("%s is still said to be read-only", got.Name)
		}
	}
}

// A mount that somebody forgot inside a volume must not cost the files there.
func deleteMounted(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	must(t, os.Mkdir(in(v, "a", "mnt"), 0o755))
	precious := t.TempDir()
	write(t, filepath.Join(precious, "f"), "precious")
	must(t, unix.Mount(precious, in(v, "a", "mnt"), "", unix.MS_BIND, ""))
	point := in(v, "a", "mnt")
	t.Cleanup(func() { _ = unix.Unmount(point, unix.MNT_DETACH) }) // gone already when Delete succeeded
	if err := v.Delete(t.Context(), "a"); err != nil {
		wantIs(t, err, storage.ErrInUse)
		wantContent(t, filepath.Join(point, "f"), "precious")
	}
	wantContent(t, filepath.Join(precious, "f"), "precious")
}

func existing(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	write(t, in(v, "a", "f"), "kept")
	create(t, v, "b", "", 0)
	must(t, v.Snapshot(t.Context(), "a", "s", 0))
	want := listed(t, v)
	for _, name := range []string{"a", "s"} {
		wantIs(t, v.Create(t.Context(), name, storage.CreateOptions{}), storage.ErrExists)
		wantIs(t, v.Create(t.Context(), name, storage.CreateOptions{Origin: "b"}), storage.ErrExists)
		wantIs(t, v.Snapshot(t.Context(), "b", name, 0), storage.ErrExists)
		wantContent(t, in(v, name, "f"), "kept")
	}
	if diff := cmp.Diff(want, listed(t, v)); diff != "" {
		t.Errorf("the refused calls left traces (-before +after):\n%s", diff)
	}
}

func absentOrigin(t *testing.T, v storage.Volumes) {
	wantIs(t, v.Create(t.Context(), "a", storage.CreateOptions{Origin: "never"}), storage.ErrNotFound)
	wantIs(t, v.Snapshot(t.Context(), "never", "s", 0), storage.ErrNotFound)
	wantAbsent(t, v, "a")
	wantAbsent(t, v, "s")
}

func badNames(t *testing.T, v storage.Volumes) {
	create(t, v, "good", "", 0)
	outside := filepath.Join(filepath.Dir(filepath.Dir(v.Path("good"))), "outside")
	must(t, os.Mkdir(outside, 0o755))
	write(t, filepath.Join(outside, "f"), "outside")
	names := []string{
		"", ".", "..", "../outside", "good/../../outside", "/etc", "a/b", "A", ".hidden", "-x", "x y",
		"x\x00y", "x\n", "ü", "x.tmp", "good/", strings.Repeat("x", 102),
	}
	for _, bad := range names {
		wantIs(t, v.Create(t.Context(), bad, storage.CreateOptions{}), storage.ErrName)
		wantIs(t, v.Snapshot(t.Context(), "good", bad, 0), storage.ErrName)
		wantIs(t, v.Snapshot(t.Context(), bad, "s", 0), storage.ErrName)
		wantIs(t, v.Delete(t.Context(), bad), storage.ErrName)
		if bad != "" { // an empty origin asks for an empty volume
			wantIs(t, v.Create(t.Context(), "s", storage.CreateOptions{Origin: bad}), storage.ErrName)
		}
		if f, ok := v.(storage.Flusher); ok {
			wantIs(t, f.Flush(t.Context(), bad), storage.ErrName)
		}
		if got := v.Path(bad); got != "" {
			t.Errorf("Path(%q) is %q, want none", bad, got)
		}
	}
	wantContent(t, filepath.Join(outside, "f"), "outside")
	wantAbsent(t, v, "s")
}

func cancelled(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantIs(t, v.Create(ctx, "b", storage.CreateOptions{Origin: "a"}), context.Canceled)
	wantIs(t, v.Snapshot(ctx, "a", "s", 0), context.Canceled)
	wantIs(t, v.Delete(ctx, "a"), context.Canceled)
	wantAbsent(t, v, "b")
	wantAbsent(t, v, "s")
	if _, err := os.Lstat(v.Path("a")); err != nil {
		t.Error("the cancelled Delete removed the volume:", err)
	}
}

func sameNameRace(t *testing.T, v storage.Volumes) {
	for _, origin := range []string{"x", "y"} {
		create(t, v, origin, "", 0)
		write(t, in(v, origin, "f"), origin)
	}
	for i := range 10 {
		name := fmt.Sprintf("race-%d", i)
		errs := atOnce(2, func(n int) error {
			return v.Create(t.Context(), name, storage.CreateOptions{Origin: []string{"x", "y"}[n], Group: uint64(n + 1)})
		})
		won := 0
		if errs[0] != nil {
			won = 1
		}
		must(t, errs[won])
		wantIs(t, errs[1-won], storage.ErrExists)
		wantContent(t, in(v, name, "f"), []string{"x", "y"}[won])
		for _, got := range listed(t, v) {
			if got.Name == name && got.Group != uint64(won+1) && got.Group != 0 {
				t.Errorf("%s is in group %d, want the winner's %d", name, got.Group, won+1)
			}
		}
	}
}

func manyAtOnce(t *testing.T, v storage.Volumes) {
	create(t, v, "base", "", 0)
	write(t, in(v, "base", "f"), "base")
	for _, err := range atOnce(16, func(n int) error {
		a, b := fmt.Sprintf("a-%d", n), fmt.Sprintf("b-%d", n)
		return errors.Join(
			v.Create(t.Context(), a, storage.CreateOptions{Origin: "base", Group: 7}),
			v.Snapshot(t.Context(), a, b, 7),
			v.Delete(t.Context(), a),
		)
	}) {
		must(t, err)
	}
	if got := listed(t, v); len(got) != 0 && len(got) != 17 {
		t.Errorf("%d volumes are left, want 17", len(got))
	}
	for n := range 16 {
		wantContent(t, in(v, fmt.Sprintf("b-%d", n), "f"), "base")
	}
}

func atOnce(n int, f func(n int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
