package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
)

func openTestPool(t *testing.T, root string) *Driver {
	t.Helper()
	d, err := Open(t.Context(), Options{Root: root, PoolBytes: 512 * mib})
	must(t, err)
	t.Cleanup(func() { must(t, d.Detach(context.Background())) })
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openTest(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

// zeros writes data that is charged like any other: btrfs compresses nothing
// unless told to.
func zeros(path string, bytes int) error {
	return os.WriteFile(path, make([]byte, bytes), 0o600)
}

func TestSubvolumesMadeInsideAVolumeCountAndGoWithIt(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openTestPool(t, root)
	must(t, d.SetLimit(t.Context(), 1, 16*mib))
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{Group: 1}))
	must(t, os.Mkdir(filepath.Join(d.Path("a"), "dir"), 0o755))
	for _, path := range []string{"dir/one", "dir/one/two", "three"} {
		parent, err := os.Open(filepath.Join(d.Path("a"), filepath.Dir(path)))
		must(t, err)
		must(t, makeSubvolume(parent, filepath.Base(path), nil, false, 0))
		must(t, parent.Close())
	}
	if err := zeros(filepath.Join(d.Path("a"), "dir/one/two/f"), 32*mib); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("a subvolume inside escapes the limit: %v", err)
	}
	must(t, d.Snapshot(t.Context(), "a", "s", 1))
	must(t, d.Delete(t.Context(), "a"))
	must(t, d.Delete(t.Context(), "s"))
	if list, err := d.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("left: %v, error %v", list, err)
	}
}

func TestGroupsThatHadToStayAreCollectedByALaterOpen(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openTestPool(t, root)
	must(t, d.SetLimit(t.Context(), 1, 64*mib))
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{Group: 1}))
	must(t, zeros(filepath.Join(d.Path("a"), "f"), 8*mib))
	must(t, d.Create(t.Context(), "b", storage.CreateOptions{Origin: "a", Group: 2}))
	must(t, d.Delete(t.Context(), "a"))
	must(t, d.DeleteGroup(t.Context(), 1)) // b shares its data
	u, err := d.Usage(t.Context(), 1)
	must(t, err)
	if u.Bytes < 8*mib {
		t.Errorf("group 1 holds %+v: nothing would have to stay", u)
	}
	must(t, d.Delete(t.Context(), "b"))
	left := 0
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		top := openTest(t, d.top)
		must(t, unix.Syncfs(int(top.Fd())))
		d, err = Open(t.Context(), Options{Root: root})
		must(t, err)
		quotas, err := readQuotaTree(top)
		must(t, err)
		if left = len(quotas.groups); left == 1 { // 0/5, that of the top level
			return
		}
	}
	t.Errorf("%d groups are left, want 1", left)
}

func TestAnOpenWithinACreateDoesNotCostTheGroup(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	d := openTestPool(t, testutil.TempDir(t))
	done, collected := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				collected <- nil
				return
			default:
			}
			if err := d.collectGroups(); err != nil {
				collected <- err
				return
			}
		}
	}()
	for i := range 100 {
		must(t, d.Create(t.Context(), fmt.Sprintf("v-%d", i), storage.CreateOptions{Group: uint64(i + 1)}))
	}
	close(done)
	must(t, <-collected)
	list, err := d.List(t.Context())
	must(t, err)
	for _, v := range list {
		if v.Name != fmt.Sprintf("v-%d", v.Group-1) {
			t.Errorf("%s is in group %d", v.Name, v.Group)
		}
	}
}

func TestALoopDeviceThatHasThePoolAlreadyIsUsed(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openTestPool(t, root)
	must(t, d.Detach(t.Context()))
	backing, id, err := d.pool.openFile()
	must(t, err)
	dev, err := attachLoop(backing)
	must(t, err)
	must(t, backing.Close())
	want, err := findLoop(id)
	must(t, err)
	openTestPool(t, root)
	m, mounted, err := topMount(d.pool.mountPoint())
	must(t, err)
	if !mounted || m.source != want || want != dev.Name() {
		t.Errorf("mounted from %q, want %q", m.source, dev.Name())
	}
	must(t, dev.Close())
}

func TestASparsePoolGrowsByItselfBeforeItIsFull(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	d := openTestPool(t, testutil.TempDir(t))
	d.pool.autoGrow = true
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	before, err := d.Capacity(t.Context())
	must(t, err)
	must(t, zeros(filepath.Join(d.Path("a"), "f"), int(before.FreeBytes-30*mib)))
	must(t, d.Flush(t.Context(), "a"))
	must(t, d.Flush(t.Context(), "a")) // the first one made the lack visible
	after, err := d.Capacity(t.Context())
	must(t, err)
	if want := before.TotalBytes * 3 / 2; after.TotalBytes != want {
		t.Errorf("the pool has %d MiB, want %d", after.TotalBytes/mib, want/mib)
	}
}
