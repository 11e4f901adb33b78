package btrfs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/btrfs"
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

// mountLines are the mountinfo lines that have the path in them.
func mountLines(t *testing.T, path string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, path) {
			lines = append(lines, line)
		}
	}
	return lines
}

func loopsOn(t *testing.T, path string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	for _, f := range files {
		b, err := os.ReadFile(f) // others' devices come and go
		if err == nil && strings.TrimSpace(string(b)) == path {
			n++
		}
	}
	return n
}

func TestManyWhoOpenAtOnceShareOnePool(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	drivers := make([]*btrfs.Driver, 8)
	errs := make([]error, len(drivers))
	var wg sync.WaitGroup
	for i := range drivers {
		wg.Go(func() {
			drivers[i], errs[i] = btrfs.Open(t.Context(), btrfs.Options{Root: root, PoolBytes: 256 << 20})
			if errs[i] == nil {
				errs[i] = drivers[i].Create(t.Context(), "v"+string(rune('a'+i)), storage.CreateOptions{})
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	if mounts, loops := mountLines(t, root), loopsOn(t, root+"/pool.img"); len(mounts) != 1 || loops != 1 {
		t.Errorf("%d loop devices and these mounts:\n%s", loops, mounts)
	}
	list, err := drivers[0].List(t.Context())
	must(t, err)
	if len(list) != len(drivers) {
		t.Errorf("%d volumes, want %d: %v", len(list), len(drivers), list)
	}
	must(t, drivers[0].Detach(t.Context()))
	if mounts, loops := mountLines(t, root), loopsOn(t, root+"/pool.img"); len(mounts) != 0 || loops != 0 {
		t.Errorf("after Detach: %d loop devices and these mounts:\n%s", loops, mounts)
	}
	must(t, drivers[0].Detach(t.Context()))
}

func TestThePoolMountLetsSetuidWorkAndSpreadsNowhere(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	openPool(t, root, btrfs.Options{})
	lines := mountLines(t, root)
	if len(lines) != 1 {
		t.Fatal(lines)
	}
	f := strings.Fields(lines[0])
	flags := strings.Split(f[5], ",")
	if slices.Contains(flags, "nosuid") || !slices.Contains(flags, "nodev") || !slices.Contains(flags, "noatime") || f[6] != "-" {
		t.Errorf("mounted as %s", lines[0])
	}
}

func TestVolumesAreThereAgainAfterDetachAndOpen(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openPool(t, root, btrfs.Options{})
	must(t, d.SetLimit(t.Context(), 3, 20<<20))
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{Group: 3}))
	must(t, os.WriteFile(filepath.Join(d.Path("a"), "f"), []byte("kept"), 0o600))
	must(t, d.Detach(t.Context()))

	err := d.Delete(t.Context(), "a")
	if err == nil || errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a detached pool passes for one without volumes: %v", err)
	}
	d = openPool(t, root, btrfs.Options{})
	b, err := os.ReadFile(filepath.Join(d.Path("a"), "f"))
	if err != nil || string(b) != "kept" {
		t.Errorf("got %q, error %v", b, err)
	}
	u, err := d.Usage(t.Context(), 3)
	if err != nil || u.LimitBytes != 20<<20 || u.Bytes == 0 {
		t.Errorf("got usage %+v, error %v", u, err)
	}
}

func TestAHalfMadePoolFileIsMadeAnew(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	must(t, os.WriteFile(root+"/pool.img.123.tmp", []byte("interrupted before mkfs was through"), 0o600))
	d := openPool(t, root, btrfs.Options{})
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	left, err := filepath.Glob(root + "/*.tmp")
	if err != nil || len(left) != 0 {
		t.Errorf("the half-made file is still there: %v, error %v", left, err)
	}
}

func TestACancelledOpenLeavesNoPool(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := btrfs.Open(ctx, btrfs.Options{Root: root, PoolBytes: 256 << 20})
	wantIs(t, err, context.Canceled)
	left, err := filepath.Glob(root + "/pool.img*")
	must(t, err)
	if len(left) != 0 || len(mountLines(t, root)) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAPoolThatDoesNotFitIsRefused(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	_, err := btrfs.Open(t.Context(), btrfs.Options{Root: root, PoolBytes: 1 << 50})
	wantIs(t, err, storage.ErrNoSpace)
	if _, err := btrfs.Open(t.Context(), btrfs.Options{Root: root, PoolBytes: 1 << 20}); err == nil {
		t.Error("a pool of 1 MiB is accepted")
	}
}

func TestGrowTakesEffectWhileThePoolIsUsed(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	for name, preallocate := range map[string]bool{"sparse": false, "preallocated": true} {
		t.Run(name, func(t *testing.T) {
			root := testutil.TempDir(t)
			d := openPool(t, root, btrfs.Options{PoolBytes: 256 << 20, Preallocate: preallocate})
			before, err := d.Capacity(t.Context())
			must(t, err)
			must(t, d.Grow(t.Context(), 512<<20))
			must(t, d.Grow(t.Context(), 300<<20)) // it never shrinks
			after, err := d.Capacity(t.Context())
			must(t, err)
			if after.TotalBytes != 512<<20 || after.FreeBytes <= before.FreeBytes {
				t.Errorf("capacity was %+v and is %+v", before, after)
			}
			wantIs(t, d.Grow(t.Context(), 1<<50), storage.ErrNoSpace)
			var st unix.Stat_t
			must(t, unix.Stat(root+"/pool.img", &st))
			if st.Size != 512<<20 || (st.Blocks*512 >= st.Size) != preallocate {
				t.Errorf("%d bytes with %d of blocks", st.Size, st.Blocks*512)
			}
			if got := strings.Contains(mountLines(t, root)[0], "discard=async"); got == preallocate {
				t.Errorf("mounted with discard: %v", got)
			}
		})
	}
}

func TestAnInterruptedGrowthIsFinishedByOpen(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	openPool(t, root, btrfs.Options{PoolBytes: 256 << 20})
	must(t, os.Truncate(root+"/pool.img", 400<<20)) // and no further
	d := openPool(t, root, btrfs.Options{PoolBytes: 256 << 20})
	c, err := d.Capacity(t.Context())
	must(t, err)
	if c.TotalBytes != 400<<20 {
		t.Errorf("the pool has %d MiB, want 400", c.TotalBytes>>20)
	}
}

func TestOpenGrowsAPoolToTheSizeAskedFor(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	openPool(t, root, btrfs.Options{PoolBytes: 256 << 20})
	d := openPool(t, root, btrfs.Options{PoolBytes: 320 << 20})
	if c, err := d.Capacity(t.Context()); err != nil || c.TotalBytes != 320<<20 {
		t.Errorf("the pool has %d MiB, want 320 (error %v)", c.TotalBytes>>20, err)
	}
}

func TestDetachRefusesWhileSomethingUsesAVolume(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openPool(t, root, btrfs.Options{})
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	f, err := os.Create(filepath.Join(d.Path("a"), "open"))
	must(t, err)
	wantIs(t, d.Detach(t.Context()), storage.ErrInUse)
	must(t, f.Close())

	bound := testutil.TempDir(t)
	must(t, unix.Mount(d.Path("a"), bound, "", unix.MS_BIND, ""))
	wantIs(t, d.Detach(t.Context()), storage.ErrInUse)
	must(t, unix.Unmount(bound, 0))
}

func TestDetachRefusesWhileAnotherMountNamespaceHasTheMount(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	d := openPool(t, root, btrfs.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "sleep", "60")
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: 0}
	must(t, cmd.Start())
	wantIs(t, d.Detach(t.Context()), storage.ErrInUse)
	if len(mountLines(t, root)) != 1 {
		t.Error("the refused Detach unmounted the pool")
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the program with the other namespace ended by itself")
	}
	must(t, d.Detach(t.Context()))
}

// On a host with systemd / is shared, and services with mount namespaces of their
// own, slaves of the host's, get what is mounted after they started.
func TestDetachTakesAlongWhatTheMountWasPropagatedTo(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	root := testutil.TempDir(t)
	must(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(root, 0)) }()
	must(t, unix.Mount("", root, "", unix.MS_SHARED, ""))
	ctx, cancel := context.WithCancel(t.Context())
	service := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo ready; exec sleep 60")
	service.WaitDelay = time.Second
	out, err := service.StdoutPipe()
	must(t, err)
	must(t, service.Start())
	defer func() {
		cancel()
		if err := service.Wait(); err == nil {
			t.Error("the program with the other namespace ended by itself")
		}
	}()
	_, err = io.ReadFull(out, make([]byte, len("ready\n")))
	must(t, err)
	d := openPool(t, root, btrfs.Options{})
	theirs := func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", service.Process.Pid))
		must(t, err)
		return strings.Contains(string(b), " btrfs ") && strings.Contains(string(b), root+"/")
	}
	if !theirs() {
		t.Fatal("the pool did not get into the other namespace: this tests nothing")
	}
	must(t, d.Detach(t.Context()))
	if theirs() {
		t.Error("the pool is still mounted in the other namespace")
	}
}

func TestASnapshotCanNotBeWritten(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	d := openPool(t, testutil.TempDir(t), btrfs.Options{})
	must(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	must(t, d.Snapshot(t.Context(), "a", "s", 0))
	wantIs(t, os.WriteFile(filepath.Join(d.Path("s"), "f"), nil, 0o600), unix.EROFS)
	must(t, os.WriteFile(filepath.Join(d.Path("a"), "f"), nil, 0o600))
}
