package btrfs_test

import (
	"context"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage/btrfs"
	"github.com/ctctl/ctctl/storage/storagetest"
)

func BenchmarkVolumes(b *testing.B) {
	testutil.Require(b, testutil.Root, testutil.Btrfs)
	o := btrfs.Options{Root: testutil.TempDir(b), PoolBytes: 4 << 30}
	d, err := btrfs.Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Detach(context.Background()); err != nil {
			b.Error(err)
		}
	})
	storagetest.Bench(b, d)
	b.Run("OpenAgain", func(b *testing.B) {
		for b.Loop() {
			if _, err := btrfs.Open(b.Context(), o); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("DetachAndOpen", func(b *testing.B) {
		for b.Loop() {
			if err := d.Detach(b.Context()); err != nil {
				b.Fatal(err)
			}
			if d, err = btrfs.Open(b.Context(), o); err != nil {
				b.Fatal(err)
			}
		}
	})
}
