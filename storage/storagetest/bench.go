package storagetest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/storage"
)

// Bench measures a driver on a tree the size of a small distribution: 10,000
// files of 8 KiB in 500 directories.
func Bench(b *testing.B, v storage.Volumes) {
	ctx := b.Context()
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	check(v.Create(ctx, "base", storage.CreateOptions{}))
	for i := range 500 {
		dir := filepath.Join(v.Path("base"), fmt.Sprint(i))
		check(os.Mkdir(dir, 0o755))
		for j := range 20 {
			check(os.WriteFile(filepath.Join(dir, fmt.Sprint(j)), make([]byte, 8<<10), 0o644))
		}
	}
	if f, ok := v.(storage.Flusher); ok {
		check(f.Flush(ctx, "base"))
	}
	n := 0
	next := func() string { n++; return fmt.Sprintf("v-%d", n) }
	b.Run("CreateEmpty", func(b *testing.B) {
		for b.Loop() {
			check(v.Create(ctx, next(), storage.CreateOptions{Group: 1}))
		}
	})
	b.Run("CreateFromOrigin", func(b *testing.B) {
		for b.Loop() {
			check(v.Create(ctx, next(), storage.CreateOptions{Origin: "base", Group: 1}))
		}
	})
	b.Run("Snapshot", func(b *testing.B) {
		for b.Loop() {
			check(v.Snapshot(ctx, "base", next(), 1))
		}
	})
	b.Run("SnapshotAfterAWrite", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			check(os.WriteFile(filepath.Join(v.Path("base"), "f"), make([]byte, 1<<20), 0o644))
			b.StartTimer()
			check(v.Snapshot(ctx, "base", next(), 1))
		}
	})
	b.Run("Delete", func(b *testing.B) {
		for b.Loop() {
			if n > 0 {
				check(v.Delete(ctx, fmt.Sprintf("v-%d", n)))
				n--
				continue
			}
			b.StopTimer()
			check(v.Create(ctx, next(), storage.CreateOptions{Origin: "base"}))
			b.StartTimer()
		}
	})
	if l, ok := v.(storage.Lister); ok {
		b.Run("List", func(b *testing.B) {
			for b.Loop() {
				_, err := l.List(ctx)
				check(err)
			}
		})
	}
}
