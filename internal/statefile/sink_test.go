package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func fill(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestASinkAppearsAtCommitWithExactlyItsMode(t *testing.T) {
	final := filepath.Join(t.TempDir(), "image")
	old := unix.Umask(0o077)
	s, err := NewSink(final, 0o711)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if s.Dir() != final+".tmp" {
		t.Errorf("writes to %s", s.Dir())
	}
	fill(t, filepath.Join(s.Dir(), "sub", "a"))
	// What has no content of its own must not be opened: a fifo would block,
	// a dangling link fail.
	if err := unix.Mkfifo(filepath.Join(s.Dir(), "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(s.Dir(), "link")); err != nil {
		t.Fatal(err)
	}
	if exists(final) {
		t.Error("visible before commit")
	}
	for range 2 {
		if err := s.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	if s.Dir() != final || exists(final+".tmp") || !exists(filepath.Join(final, "sub", "a")) {
		t.Errorf("not moved to %s", s.Dir())
	}
	info, err := os.Stat(final)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o711 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestAnAbortedSinkIsGoneAndCannotBeCommitted(t *testing.T) {
	final := filepath.Join(t.TempDir(), "image")
	s, err := NewSink(final, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(s.Dir(), "a"))
	for range 2 {
		if err := s.Abort(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Commit(); !errors.Is(err, ErrAborted) {
		t.Errorf("got %v", err)
	}
	if exists(final) || exists(final+".tmp") {
		t.Error("something is left")
	}
}

func TestNewSinkRemovesWhatAnInterruptedOneLeft(t *testing.T) {
	final := filepath.Join(t.TempDir(), "image")
	fill(t, filepath.Join(final+".tmp", "sub", "stale"))
	s, err := NewSink(final, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(final, "sub")) {
		t.Error("a stale file was published")
	}
}

func TestCommitDoesNotReplaceWhatIsThere(t *testing.T) {
	final := filepath.Join(t.TempDir(), "image")
	s, err := NewSink(final, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(final, 0o700); err != nil { // empty: rename(2) would replace it
		t.Fatal(err)
	}
	if err := s.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if !exists(s.Dir()) {
		t.Error("the sink is gone")
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
}

func TestSweepTempRemovesFilesAndDirectoriesInTmpOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.tmp/x", "keep/inner.tmp", "state.json.123.tmp", "tmp", "b.tmpx"} {
		fill(t, filepath.Join(dir, name))
	}
	removed, err := SweepTemp(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a.tmp", "state.json.123.tmp"}, removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	for _, name := range []string{"keep/inner.tmp", "tmp", "b.tmpx"} {
		if !exists(filepath.Join(dir, name)) {
			t.Errorf("%s is gone", name)
		}
	}
	if exists(filepath.Join(dir, "a.tmp")) {
		t.Error("a.tmp is still there")
	}
	if _, err := SweepTemp(filepath.Join(dir, "absent")); err != nil {
		t.Error(err)
	}
}

func TestSyncDirRefusesWhatIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "a"))
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "a")); err == nil {
		t.Error("a file was taken for a directory")
	}
}
