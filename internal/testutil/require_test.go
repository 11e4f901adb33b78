package testutil

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// outcome records what Require does to a test; like a test it ends there.
type outcome struct {
	testing.TB
	fatal, skip string
}

func (o *outcome) Helper()           {}
func (o *outcome) Fatal(args ...any) { o.fatal = args[0].(string); runtime.Goexit() }
func (o *outcome) Skip(args ...any)  { o.skip = args[0].(string); runtime.Goexit() }

func TestRequireSkipsButFailsWhenStrict(t *testing.T) {
	have := func() error { return nil }
	lack := func(what string) Need { return func() error { return errors.New(what) } }
	tests := map[string]struct {
		strict      string
		needs       []Need
		fatal, skip string
	}{
		"nothing missing": {"", []Need{have, have}, "", ""},
		"strict and fine": {"1", []Need{have}, "", ""},
		"missing":         {"", []Need{have, lack("a"), lack("b")}, "", "needs a; b"},
		"strict":          {"1", []Need{lack("a"), have, lack("b")}, "needs a; b", ""},
		"strict off":      {"0", []Need{lack("a")}, "", "needs a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(strictEnv, tt.strict)
			o := &outcome{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Require(o, tt.needs...)
			}()
			<-done
			if o.fatal != tt.fatal || o.skip != tt.skip {
				t.Errorf("got fatal %q, skip %q", o.fatal, o.skip)
			}
		})
	}
}

func TestCheckCRIU(t *testing.T) {
	for out, want := range map[string]string{
		"Version: 4.2.1\n":                  "",
		"Version: 4.2\nGitID: v4.2\n":       "",
		"Version: 5.0\n":                    "",
		"Version: 4.1.1\n":                  "4.1",
		"Version: 3.17\n":                   "3.17",
		"criu: error while loading\n":       "instead of its version",
		"Version: 99999999999999999999.1\n": "4.2 or newer",
	} {
		err := checkCRIU("/x/criu", out)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", out, err)
		}
	}
}

func TestKernelAtLeast(t *testing.T) {
	if err := kernelAtLeast(3, 10); err != nil {
		t.Error(err)
	}
	if err := kernelAtLeast(999, 0); err == nil || !strings.Contains(err.Error(), "Linux 999.0 or newer") {
		t.Errorf("got %v", err)
	}
}

func TestAToolThatIsNotThereIsNamed(t *testing.T) {
	if err := Tool("true")(); err != nil {
		t.Error(err)
	}
	if err := Tool("no-such-program")(); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v", err)
	}
}

func TestTempDirIsPrivateOnDiskAndRemoved(t *testing.T) {
	var dir string
	t.Run("with a / and a name that is longer than what a socket address leaves", func(t *testing.T) {
		dir = TempDir(t)
		if other := TempDir(t); other == dir {
			t.Error("twice the same")
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != os.ModeDir|0o700 || !strings.HasPrefix(dir, diskTemp+"/") || len(dir) > 90 {
			t.Errorf("%s has mode %v", dir, info.Mode())
		}
		if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
