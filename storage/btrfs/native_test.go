package btrfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/storagetest"
)

// openNativeAt makes a root below dir, which is on btrfs already.
func openNativeAt(t *testing.T, dir string, o Options) *Driver {
	t.Helper()
	root, err := os.MkdirTemp(dir, "root-")
	must(t, err)
	o.Root = root
	d, err := Open(t.Context(), o)
	must(t, err)
	if d.pool != nil {
		t.Error("it made a pool on btrfs")
	}
	return d
}

func TestVolumesOnARealBtrfsKeepTheContract(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	storagetest.Run(t, func(t *testing.T) storage.Volumes {
		host := openTestPool(t, testutil.TempDir(t))
		return openNativeAt(t, host.top, Options{})
	})
}

func TestTwoRootsOnOneBtrfsHaveSeparateGroups(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	host := openTestPool(t, testutil.TempDir(t))
	a, b := openNativeAt(t, host.top, Options{}), openNativeAt(t, host.top, Options{})
	must(t, a.SetLimit(t.Context(), 1, 8*mib))
	for _, d := range []*Driver{a, b} {
		must(t, d.Create(t.Context(), "v", storage.CreateOptions{Group: 1}))
	}
	if err := zeros(filepath.Join(a.Path("v"), "f"), 16*mib); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("writing beyond the limit: %v", err)
	}
	must(t, zeros(filepath.Join(b.Path("v"), "f"), 16*mib))
}

func TestQuotasOfAUsersBtrfsAreSwitchedOnOnlyWhenAsked(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	p := &pool{root: testutil.TempDir(t)}
	must(t, p.ensureFile(t.Context(), Options{PoolBytes: 256 * mib}))
	must(t, p.ensureMounted())
	t.Cleanup(func() { must(t, p.detach(context.Background())) })

	d := openNativeAt(t, p.mountPoint(), Options{})
	if err := d.SetLimit(t.Context(), 1, mib); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("SetLimit without quotas: %v", err)
	}
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{Group: 1}))
	must(t, d.Snapshot(t.Context(), "a", "s", 1))
	if list, err := d.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("got %v, error %v", list, err)
	}
	if err := d.Grow(t.Context(), gib); !errors.Is(err, storage.ErrUnsupported) {
		t.Errorf("Grow on a real btrfs: %v", err)
	}
	must(t, d.Detach(t.Context()))

	d = openNativeAt(t, p.mountPoint(), Options{EnableQuota: true})
	must(t, d.SetLimit(t.Context(), 1, mib))
}
