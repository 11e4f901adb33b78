package integration_test

import (
	"fmt"
	"testing"
	"time"
)

const (
	cutRounds      = 100
	cutRoundsShort = 5
	writerPort     = 7002
)

// cutWriter is a client of the program writer.
type cutWriter struct{ *line }

func (w cutWriter) add(string) error { return nil }

func (w cutWriter) content() (string, error) { return w.ask("check") }

func (w cutWriter) now(t *testing.T) (n uint64) {
	t.Helper()
	answer, err := w.ask("now")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(answer, &n); err != nil {
		t.Fatalf("%q: %v", answer, err)
	}
	return n
}

// TestMemoryAndDiskAgreeAtTheCut takes snapshots of a program that counts in
// memory, in a file and in a shared mapping all the time, and goes back to each.
func TestMemoryAndDiskAgreeAtTheCut(t *testing.T) {
	r := open(t)
	t.Parallel()
	if err := goBuild(built("writer"), "./testdata/writer", "CGO_ENABLED=0"); err != nil {
		t.Fatal(err)
	}
	rounds := cutRounds
	if testing.Short() {
		rounds = cutRoundsShort
	}
	b := r.create(t, waitAndRun("/srv/writer")...)
	r.ctctl(t, "start", b.name)
	b.install(t, built("writer"), "/srv/writer")
	p := payload{port: writerPort, talk: func(l *line) session { return cutWriter{l} }}
	w := b.connect(t, p).(cutWriter)
	start := time.Now()
	mismatches := 0
	var counted uint64
	for round := range rounds {
		var agree bool
		w, agree = b.cut(t, p, w, round)
		if !agree {
			mismatches++
		}
	}
	counted = w.now(t)
	t.Logf("%d rounds, %d mismatches, %d counts, %.1f s", rounds, mismatches, counted, time.Since(start).Seconds())
	if mismatches > 0 {
		t.Errorf("%d of %d rounds had memory and disk of different moments", mismatches, rounds)
	}
	r.ctctl(t, "destroy", "--force", b.name)
	b.wantGone(t)
}

// cut is one round: a snapshot, some counting, and back.
func (b *box) cut(t *testing.T, p payload, w cutWriter, round int) (cutWriter, bool) {
	t.Helper()
	snap := fmt.Sprintf("cut-%d", round)
	least := w.now(t)
	b.quietly(t, "snapshot", "create", b.name, snap)
	most := w.now(t)
	if most <= least {
		t.Fatalf("round %d: the writer does not count: %d, %d", round, least, most)
	}
	b.quietly(t, "rollback", b.name, snap)
	w = b.connect(t, p).(cutWriter)
	answer, err := w.ask("cut")
	if err != nil {
		t.Fatal(err)
	}
	var memory, file, mapped, still uint64
	if _, err := fmt.Sscan(answer, &memory, &file, &mapped, &still); err != nil {
		t.Fatalf("round %d: %q: %v", round, answer, err)
	}
	wrong, err := w.ask("check")
	if err != nil {
		t.Fatal(err)
	}
	agree := memory == file && memory == mapped && wrong == "ok"
	if !agree {
		t.Errorf("round %d: at the cut %d in memory, %d in the file, %d in the mapping; all marks: %s", round, memory, file, mapped, wrong)
	}
	// Otherwise what agreed was not the moment of the snapshot.
	if memory < least || memory > most {
		t.Errorf("round %d: the cut is at %d, the snapshot was taken between %d and %d (stood still %d ms)", round, memory, least, most, still)
	}
	b.quietly(t, "snapshot", "delete", b.name, snap)
	return w, agree
}

// quietly is ctctl without a line in the log.
func (r *rig) quietly(t testing.TB, args ...string) {
	t.Helper()
	if res := r.try(t, args...); res.err != nil {
		t.Fatalf("%v\n%s", res, r.logs())
	}
}
