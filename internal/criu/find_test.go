package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestVersionsAreParsedAndCompared(t *testing.T) {
	tests := map[string]struct {
		want Version
		old  bool
	}{
		"Version: 4.2.1\n":                       {Version{4, 2, 1}, false},
		"Version: 4.2\nGitID: v4.2-1-gdeadbee\n": {Version{4, 2, 0}, false},
		"Version: 4.1.1\n":                       {Version{4, 1, 1}, true},
		"Version: 3.17\n":                        {Version{3, 17, 0}, true},
		"Version: 5.0-rc1\n":                     {Version{5, 0, 0}, false},
	}
	for out, tt := range tests {
		got, err := parseVersion(out)
		if err != nil || got != tt.want || got.Less(MinVersion) != tt.old {
			t.Errorf("%q: %v (too old: %v), %v", out, got, got.Less(MinVersion), err)
		}
	}
	for _, out := range []string{"", "Version: \n", "Version: 4\n", "Version: x.y\n", "4.2\n"} {
		if v, err := parseVersion(out); err == nil {
			t.Errorf("%q is taken for %v", out, v)
		}
	}
	if got := (Version{4, 2, 1}).String() + " " + (Version{4, 2, 0}).String(); got != "4.2.1 4.2" {
		t.Errorf("printed as %s", got)
	}
}

// script makes an executable that answers --version.
func script(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho 'Version: "+version+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFindPrefersTheFlagThenTheEnvironment(t *testing.T) {
	flag, env := script(t, "4.2"), script(t, "4.3")
	t.Setenv(EnvBinary, env)
	for wish, want := range map[string]string{flag: flag, "": env} {
		e, err := Find(wish)
		if err != nil || e.Binary != want {
			t.Errorf("Find(%q) = %q, %v, want %q", wish, e.Binary, err, want)
		}
	}
}

func TestAQuestionForTheVersionThatIsNotAnsweredSaysSo(t *testing.T) {
	path := script(t, "")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	patience := errors.New("no answer within the time of a test")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, patience)
	defer cancel()
	if _, err := (Engine{Binary: path}).Version(ctx); !errors.Is(err, patience) {
		t.Errorf("the error is: %v", err)
	}
}

func TestFindLooksInPathLast(t *testing.T) {
	t.Setenv(EnvBinary, "")
	path := script(t, "4.2.1")
	t.Setenv("PATH", filepath.Dir(path))
	e, err := Find("")
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range privatePaths {
		if _, err := os.Stat(own); err == nil {
			path = own
			break
		}
	}
	if e.Binary != path {
		t.Errorf("found %q, want %q", e.Binary, path)
	}
}

func TestFindRefusesWhatIsAbsentOrTooOld(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "criu")
	if _, err := Find(absent); !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), absent) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Find(script(t, "4.1.1")); !errors.Is(err, ErrTooOld) || !strings.Contains(err.Error(), "4.1.1") {
		t.Errorf("old: %v", err)
	}
	if _, err := Find("/bin/true"); err == nil {
		t.Error("a program that is not CRIU is taken for it")
	}
}
