package btrfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
)

func TestWhatAGroupHoldsIsReadThroughAVolume(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	d := openTestPool(t, testutil.TempDir(t))
	must(t, d.SetLimit(t.Context(), 7, 16*mib))
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{Group: 7}))
	must(t, d.Create(t.Context(), "free", storage.CreateOptions{}))
	must(t, zeros(filepath.Join(d.Path("a"), "f"), 4*mib))
	must(t, os.Mkdir(filepath.Join(d.Path("a"), "dir"), 0o755))
	must(t, d.Snapshot(t.Context(), "a", "s", 7))
	must(t, d.Flush(t.Context(), "s"))
	want, err := d.Usage(t.Context(), 7)
	must(t, err)
	if want.Bytes < 4*mib {
		t.Fatalf("%d bytes held, at least 4 MiB were written", want.Bytes)
	}
	for _, dir := range []string{d.Path("a"), d.Path("s"), filepath.Join(d.Path("s"), "dir")} {
		got, err := Held(dir)
		if err != nil || got != want {
			t.Errorf("through %s: got %+v (error %v), want %+v", dir, got, err, want)
		}
	}
	for _, dir := range []string{d.Path("free"), "/proc"} {
		if u, err := Held(dir); !errors.Is(err, storage.ErrUnsupported) {
			t.Errorf("%s: got %+v, error %v", dir, u, err)
		}
	}
	if _, err := Held(filepath.Join(d.Path("a"), "none")); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a volume that is not there: %v", err)
	}
}
