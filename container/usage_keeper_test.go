package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
)

func testKeeper(t *testing.T) *usageKeeper {
	t.Helper()
	k := &usageKeeper{file: filepath.Join(t.TempDir(), "usage", "usage.json"), log: slog.New(slog.DiscardHandler)}
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *usageKeeper) stored(t *testing.T) *ledger {
	t.Helper()
	l, err := readLedger(k.file)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUsageIsWrittenDownOnceAMinuteAndAtBothEnds(t *testing.T) {
	k := testKeeper(t)
	now, n := dawn, int64(0)
	k.read = func() (reading, error) { return refused("a", now, n), nil }
	k.save(now)
	writes, last := 0, k.stored(t).At
	for range 60 {
		now, n = now.Add(usageLook), n+1
		k.tick(now)
		if at := k.stored(t).At; !at.Equal(last) {
			writes, last = writes+1, at
		}
		if behind := now.Sub(last); behind >= usageSave {
			t.Fatalf("what is written is %v old", behind)
		}
	}
	if writes != 10 {
		t.Errorf("%d writes in ten minutes", writes)
	}
	now, n = now.Add(time.Second), n+1
	k.save(now)
	if got := k.stored(t).total()[forks]; got != n {
		t.Errorf("at the end %d are written down, want %d", got, n)
	}
	if s := k.stored(t).Samples; !s[len(s)-1].At.Equal(now) {
		t.Errorf("the end is no sample: the last is of %v", s[len(s)-1].At)
	}
	now = dawn.Add(-time.Hour) // the clock was set back
	k.tick(now)
	if got := k.stored(t).At; !got.Equal(now) {
		t.Errorf("written at %v, it is %v", got, now)
	}
}

func TestAReadingThatFailsKeepsWhatIsKnown(t *testing.T) {
	k := testKeeper(t)
	k.read = func() (reading, error) { return refused("a", dawn, 7), nil }
	k.save(dawn)
	k.read = func() (reading, error) { return reading{}, errors.New("gone") }
	k.tick(dawn.Add(time.Hour))
	k.save(dawn.Add(2 * time.Hour))
	if got := k.stored(t).total()[forks]; got != 7 {
		t.Errorf("got %d, want 7", got)
	}
}

func TestAnUnreadableLedgerIsPutAsideAndANewerOneLeftAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		err     error
		aside   bool
	}{
		"cut short": {content: `{"kind": "container-us`, aside: true},
		"newer":     {content: `{"kind": "container-usage", "version": 99, "data": {}}`, err: statefile.ErrNewer},
	} {
		t.Run(name, func(t *testing.T) {
			k := testKeeper(t)
			if err := os.WriteFile(k.file, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := k.open(); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			kept := k.file
			if tt.aside {
				kept += ".bad"
				if _, err := os.Stat(k.file); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("it is still there: %v", err)
				}
			}
			if b, err := os.ReadFile(kept); err != nil || string(b) != tt.content {
				t.Errorf("%s holds %q, %v", kept, b, err)
			}
		})
	}
}
