package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"golang.org/x/sys/unix"
)

// probes returns how often a fake was asked about the kernel.
func probes(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "probes"))
	if err != nil {
		t.Fatal(err)
	}
	return len(b)
}

func TestTheKernelIsProbedOnceAndAgainWhenSomethingIsStale(t *testing.T) {
	testutil.Require(t, testutil.Root)
	e, dir := fake(t, "kdat")
	run := testutil.TempDir(t)
	kdat, stamp := filepath.Join(run, kdatName), filepath.Join(run, stampName)
	steps := []struct {
		name   string
		change func() error
		want   int
	}{
		{"there is none", func() error { return nil }, 1},
		{"all is well", func() error { return nil }, 1},
		{"the cache is gone", func() error { return os.Remove(kdat) }, 2},
		{"the cache is another", func() error { return os.WriteFile(kdat, []byte("foreign"), 0o600) }, 3},
		{"the stamp is of another boot", func() error {
			b, err := os.ReadFile(stamp)
			if err != nil {
				return err
			}
			return os.WriteFile(stamp, []byte(strings.Replace(string(b), "boot ", "boot 0", 1)), 0o600)
		}, 4},
		{"the stamp is empty", func() error { return os.Truncate(stamp, 0) }, 5},
		{"criu is another", func() error { return os.Chtimes(e.Binary, time.Time{}, time.Unix(1, 0)) }, 6},
		{"a killed process left its file", func() error {
			return errors.Join(os.Remove(kdat), os.Symlink("/nonexistent/x", kdat+".new"))
		}, 7},
		{"all is well again", func() error { return nil }, 7},
	}
	for _, s := range steps {
		if err := s.change(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if err := e.EnsureKdat(t.Context(), run); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if got := probes(t, dir); got != s.want {
			t.Errorf("%s: probed %d times by now, want %d", s.name, got, s.want)
		}
		if b, err := os.ReadFile(kdat); err != nil || string(b) != "kernel" {
			t.Errorf("%s: the cache is %q, %v", s.name, b, err)
		}
	}
}

func TestManyProbersAtOnceProbeOnce(t *testing.T) {
	testutil.Require(t, testutil.Root)
	e, dir := fake(t, "kdat")
	run := testutil.TempDir(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := e.EnsureKdat(t.Context(), run); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := probes(t, dir); got != 1 {
		t.Errorf("probed %d times, want once", got)
	}
}

func TestWaitingForAnotherProberEndsWithTheContext(t *testing.T) {
	testutil.Require(t, testutil.Root)
	e, _ := fake(t, "kdat")
	run := testutil.TempDir(t)
	held, err := lockStamp(t.Context(), filepath.Join(run, stampName))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := e.EnsureKdat(ctx, run); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v, want DeadlineExceeded", err)
	}
}

func TestACRIUThatKeepsNoCacheIsAnError(t *testing.T) {
	testutil.Require(t, testutil.Root)
	e, _ := fake(t, "quiet")
	run := testutil.TempDir(t)
	if err := e.EnsureKdat(t.Context(), run); err == nil || !strings.Contains(err.Error(), "keeps no cache") {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(run, kdatName)); err == nil {
		t.Error("a cache was installed")
	}
}

func TestTheProbeIsInvisibleToTheHost(t *testing.T) {
	e := engine(t)
	var before, after unix.Stat_t
	beforeErr := unix.Stat(filepath.Join(kdatDir, kdatName), &before)
	data, err := e.probeKernel(t.Context())
	if err != nil || len(data) == 0 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	// A dump of another test may make the cache where /run is a tmpfs.
	afterErr := unix.Stat(filepath.Join(kdatDir, kdatName), &after)
	if beforeErr == nil && (afterErr != nil || before.Ino != after.Ino) {
		t.Error("the host's cache has changed")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "size=1024k,mode=700") {
		t.Error("the private tmpfs is visible")
	}
}

func TestACacheSavesTheProbe(t *testing.T) {
	e := engine(t)
	err := inPrivateMounts(func() error {
		if err := unix.Mount("tmpfs", kdatDir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
			return err
		}
		cold := time.Now()
		if err := e.checkFeatures(t.Context()); err != nil {
			return err
		}
		warm := time.Now()
		if err := e.checkFeatures(t.Context()); err != nil {
			return err
		}
		t.Logf("without %s, with %s", warm.Sub(cold).Round(100*time.Microsecond), time.Since(warm).Round(100*time.Microsecond))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
