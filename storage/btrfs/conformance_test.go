package btrfs_test

import (
	"context"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/btrfs"
	"github.com/ctctl/ctctl/storage/storagetest"
)

func TestVolumesInAPoolKeepTheContract(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	storagetest.Run(t, func(t *testing.T) storage.Volumes { return openPool(t, testutil.TempDir(t), btrfs.Options{}) })
}

// openPool opens a small pool at root and takes it away with t.
func openPool(t *testing.T, root string, o btrfs.Options) *btrfs.Driver {
	t.Helper()
	o.Root = root
	if o.PoolBytes == 0 {
		o.PoolBytes = 512 << 20
	}
	d, err := btrfs.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}
