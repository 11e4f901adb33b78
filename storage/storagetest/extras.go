package storagetest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ctctl/ctctl/storage"
)

func list(t *testing.T, v storage.Volumes) {
	l, ok := v.(storage.Lister)
	if !ok {
		t.Skip("this driver can't list")
	}
	got, err := l.List(t.Context())
	must(t, err)
	if len(got) != 0 {
		t.Errorf("a new store lists %v", got)
	}
	create(t, v, "web.1", "", 5)
	create(t, v, "db", "web.1", 0)
	must(t, v.Snapshot(t.Context(), "web.1", "web-1", 5))
	want := []storage.Volume{{Name: "db"}, {Name: "web-1", ReadOnly: true, Group: 5}, {Name: "web.1", Group: 5}}
	if lim, ok := v.(storage.Limiter); ok {
		if _, err := lim.Usage(t.Context(), 5); err != nil {
			wantIs(t, err, storage.ErrUnsupported)
			want[1].Group, want[2].Group = 0, 0
		}
	}
	got, err = l.List(t.Context())
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func leftovers(t *testing.T, v storage.Volumes) {
	create(t, v, "a", "", 0)
	write(t, in(v, "a", "f"), "a")
	dir := filepath.Dir(v.Path("a"))
	for _, name := range []string{"x.tmp", "a.tmp", "x.0123456789.tmp"} {
		must(t, os.MkdirAll(filepath.Join(dir, name, "half"), 0o755))
	}
	write(t, filepath.Join(dir, "stray"), "a file is no volume")
	for _, got := range listed(t, v) {
		if got.Name != "a" {
			t.Errorf("%s is listed", got.Name)
		}
	}
	create(t, v, "x", "a", 0)
	wantContent(t, in(v, "x", "f"), "a")
	must(t, v.Delete(t.Context(), "a"))
	must(t, v.Delete(t.Context(), "x"))
	wantAbsent(t, v, "x")
	for _, tmp := range []string{"x.tmp", "a.tmp", "x.0123456789.tmp"} {
		must(t, os.RemoveAll(filepath.Join(dir, tmp)))
	}
}

func capacity(t *testing.T, v storage.Volumes) {
	g, ok := v.(storage.Gauge)
	if !ok {
		t.Skip("this driver has no gauge")
	}
	before, err := g.Capacity(t.Context())
	must(t, err)
	if before.FreeBytes <= 0 || before.FreeBytes > before.TotalBytes {
		t.Errorf("implausible: %+v", before)
	}
	must(t, storage.CheckRoom(before, 1<<20))
	wantIs(t, storage.CheckRoom(before, before.TotalBytes), storage.ErrNoSpace)
	create(t, v, "a", "", 0)
	const size = 40 << 20
	must(t, fill(in(v, "a", "f"), size))
	// Others use the file system too, so only a good part is asked for.
	after, err := g.Capacity(t.Context())
	must(t, err)
	if fallen := before.FreeBytes - after.FreeBytes; fallen < size/2 {
		t.Errorf("%d bytes were written and capacity fell by %d", size, fallen)
	}
}

func flush(t *testing.T, v storage.Volumes) {
	f, ok := v.(storage.Flusher)
	if !ok {
		t.Skip("this driver has nothing to flush")
	}
	wantIs(t, f.Flush(t.Context(), "never"), storage.ErrNotFound)
	create(t, v, "a", "", 0)
	write(t, in(v, "a", "f"), "x")
	must(t, f.Flush(t.Context(), "a"))
	wantContent(t, in(v, "a", "f"), "x")
}
