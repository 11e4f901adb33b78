package storagetest

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

const mib = 1 << 20

var limitCases = []struct {
	name string
	run  func(t *testing.T, v storage.Volumes, l storage.Limiter)
}{
	{"AFullGroupGetsEDQUOTAndOthersStillWrite", fullGroup},
	{"ALimitSurvivesRollbackToASnapshot", rollbackGame},
	{"AFullContainerCanBeSnapshottedAndRolledBack", fullRollback},
	{"RemovingFilesWorksWhenFullAndMakesRoom", removeWhenFull},
	{"RaisingAndLiftingALimitTakesEffectAtOnce", raiseLimit},
	{"ALimitBelowTheUsageStopsFurtherWrites", limitBelowUsage},
	{"UsageTellsWhatAGroupHolds", usage},
	{"DeleteGroupLiftsTheLimitAndForgivesAbsence", deleteGroup},
}

func fullGroup(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.SetLimit(t.Context(), 1, 24*mib))
	create(t, v, "a", "", 1)
	create(t, v, "a2", "", 1)
	create(t, v, "b", "", 2)
	create(t, v, "c", "", 0)
	must(t, fill(in(v, "a", "f"), 16*mib))
	wantIs(t, fill(in(v, "a2", "f"), 16*mib), unix.EDQUOT)
	must(t, fill(in(v, "b", "f"), 32*mib))
	must(t, fill(in(v, "c", "f"), 32*mib))
}

// Were the limit that of a subvolume, each rollback would give a new helping.
func rollbackGame(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.SetLimit(t.Context(), 1, 48*mib))
	create(t, v, "root", "", 1)
	must(t, fill(in(v, "root", "one"), 20*mib))
	must(t, v.Snapshot(t.Context(), "root", "snap", 1))
	must(t, v.Delete(t.Context(), "root"))
	create(t, v, "root", "snap", 1)
	must(t, fill(in(v, "root", "two"), 20*mib))
	must(t, v.Snapshot(t.Context(), "root", "snap2", 1))
	must(t, v.Delete(t.Context(), "root"))
	create(t, v, "root", "snap2", 1)
	wantIs(t, fill(in(v, "root", "three"), 20*mib), unix.EDQUOT)
}

func fullRollback(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.SetLimit(t.Context(), 1, 16*mib))
	create(t, v, "root", "", 1)
	wantIs(t, fill(in(v, "root", "f"), 32*mib), unix.EDQUOT)
	must(t, v.Snapshot(t.Context(), "root", "snap", 1))
	must(t, v.Delete(t.Context(), "root"))
	create(t, v, "root", "snap", 1)
	must(t, v.Delete(t.Context(), "snap"))
	must(t, os.Remove(in(v, "root", "f")))
}

func removeWhenFull(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.SetLimit(t.Context(), 1, 32*mib))
	create(t, v, "a", "", 1)
	must(t, fill(in(v, "a", "big"), 24*mib))
	wantIs(t, fill(in(v, "a", "rest"), 32*mib), unix.EDQUOT)
	must(t, os.Remove(in(v, "a", "big")))
	eventually(t, v, "a", func() error { return fill(in(v, "a", "again"), 16*mib) })
}

func raiseLimit(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.SetLimit(t.Context(), 1, 16*mib))
	create(t, v, "a", "", 1)
	wantIs(t, fill(in(v, "a", "f"), 24*mib), unix.EDQUOT)
	must(t, l.SetLimit(t.Context(), 1, 64*mib))
	must(t, fill(in(v, "a", "g"), 24*mib))
	must(t, l.SetLimit(t.Context(), 1, 0))
	must(t, fill(in(v, "a", "h"), 64*mib))
}

func limitBelowUsage(t *testing.T, v storage.Volumes, l storage.Limiter) {
	create(t, v, "a", "", 1)
	must(t, fill(in(v, "a", "f"), 32*mib))
	settle(t, v, "a")
	must(t, l.SetLimit(t.Context(), 1, 16*mib))
	wantIs(t, fill(in(v, "a", "g"), 4*mib), unix.EDQUOT)
}

func usage(t *testing.T, v storage.Volumes, l storage.Limiter) {
	got, err := l.Usage(t.Context(), 9)
	must(t, err)
	if got != (storage.Usage{}) {
		t.Errorf("an absent group holds %+v", got)
	}
	must(t, l.SetLimit(t.Context(), 9, 100*mib))
	create(t, v, "a", "", 9)
	create(t, v, "other", "", 0)
	must(t, fill(in(v, "a", "f"), 10*mib))
	must(t, fill(in(v, "other", "f"), 10*mib))
	must(t, v.Snapshot(t.Context(), "a", "s", 9))
	create(t, v, "b", "s", 9)
	must(t, fill(in(v, "b", "g"), 10*mib))
	settle(t, v, "a")
	got, err = l.Usage(t.Context(), 9)
	must(t, err)
	if got.LimitBytes != 100*mib || got.Bytes < 20*mib || got.Bytes > 25*mib {
		t.Errorf("got %+v, want 20 MiB and a little, of 100 MiB", got)
	}
}

func deleteGroup(t *testing.T, v storage.Volumes, l storage.Limiter) {
	must(t, l.DeleteGroup(t.Context(), 3))
	must(t, l.SetLimit(t.Context(), 3, 16*mib))
	create(t, v, "a", "", 3)
	create(t, v, "b", "a", 4)
	must(t, l.DeleteGroup(t.Context(), 3)) // still has members
	must(t, fill(in(v, "a", "f"), 24*mib))
	settle(t, v, "a")
	create(t, v, "c", "a", 4) // shares the data
	must(t, v.Delete(t.Context(), "a"))
	must(t, l.DeleteGroup(t.Context(), 3))
	must(t, l.DeleteGroup(t.Context(), 3))
	got, err := l.Usage(t.Context(), 3)
	must(t, err)
	if got.LimitBytes != 0 {
		t.Errorf("the limit is still there: %+v", got)
	}
}

// fill writes bytes that can't be compressed, and sees them on disk.
func fill(path string, bytes int) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, mib)
	for range bytes / mib {
		_, _ = rand.Read(block) // never fails (crypto/rand)
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// settle makes usage figures current.
func settle(t *testing.T, v storage.Volumes, name string) {
	t.Helper()
	if f, ok := v.(storage.Flusher); ok {
		must(t, f.Flush(context.WithoutCancel(t.Context()), name))
	}
}

// eventually tries f again while the driver gives space back in the background.
func eventually(t *testing.T, v storage.Volumes, name string, f func() error) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for {
		settle(t, v, name)
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
