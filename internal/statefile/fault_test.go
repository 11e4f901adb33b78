package statefile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var errFault = errors.New("injected fault")

// flaky lets the n-th call fail. When it crashes, nothing works from then on,
// not even cleaning up, and lose does what a power cut may do to everything
// that was not synced.
type flaky struct {
	n, calls int
	crash    bool
	dead     bool
	dirty    map[string]bool // files and directories that were changed and not synced
	renames  []pendingRename
}

type pendingRename struct {
	dir    string
	revert func() error
}

func (f *flaky) disk() disk {
	return disk{write: f.write, sync: f.sync, rename: f.rename, place: f.place, remove: f.remove}
}

func (f *flaky) next() error {
	f.calls++
	if f.dead || f.calls == f.n {
		f.dead = f.crash
		return errFault
	}
	return nil
}

func (f *flaky) write(file *os.File, b []byte) (int, error) {
	f.dirty[file.Name()] = true
	if err := f.next(); err != nil {
		n, _ := file.Write(b[:len(b)/2]) // a torn write
		return n, err
	}
	return file.Write(b)
}

func (f *flaky) sync(file *os.File) error {
	if err := f.next(); err != nil {
		return err
	}
	delete(f.dirty, file.Name())
	var still []pendingRename
	for _, r := range f.renames {
		if r.dir != filepath.Clean(file.Name()) {
			still = append(still, r)
		}
	}
	f.renames = still
	return file.Sync()
}

func (f *flaky) rename(from, to string) error {
	if err := f.next(); err != nil {
		return err
	}
	old, err := os.ReadFile(to)
	revert := func() error { return os.WriteFile(to, old, 0o600) }
	if err != nil {
		revert = func() error { return os.Remove(to) }
	}
	f.moved(from, to, revert)
	return os.Rename(from, to)
}

func (f *flaky) place(from, to string) error {
	if err := f.next(); err != nil {
		return err
	}
	f.moved(from, to, func() error { return os.Rename(to, from) })
	return renameNoReplace(from, to)
}

func (f *flaky) remove(path string) error {
	if f.dead {
		return errFault
	}
	return RemoveTree(path)
}

func (f *flaky) moved(from, to string, revert func() error) {
	for path := range f.dirty {
		if rest, ok := strings.CutPrefix(path, from); ok {
			delete(f.dirty, path)
			f.dirty[to+rest] = true
		}
	}
	f.renames = append(f.renames, pendingRename{filepath.Dir(to), revert})
}

// lose is the power cut: unsynced files are empty, unsynced directories have
// no entries, and unsynced renames have happened or not.
func (f *flaky) lose(t *testing.T, revert bool) {
	t.Helper()
	for path := range f.dirty {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			continue
		case info.IsDir():
			err = errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700))
		default:
			err = os.Truncate(path, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := len(f.renames) - 1; revert && i >= 0; i-- {
		if err := f.renames[i].revert(); err != nil {
			t.Fatal(err)
		}
	}
}

// forEveryFault runs f with the first, second … call failing until one run has
// no failure, and requires that at least `least` runs had one.
func forEveryFault(t *testing.T, least int, f func(t *testing.T, fl *flaky, revert bool)) {
	for _, kind := range []struct {
		name          string
		crash, revert bool
	}{{"error", false, false}, {"power cut", true, false}, {"power cut before the rename is durable", true, true}} {
		t.Run(kind.name, func(t *testing.T) {
			n := 1
			for ; ; n++ {
				fl := &flaky{n: n, crash: kind.crash, dirty: map[string]bool{}}
				f(t, fl, kind.revert)
				if fl.calls < n {
					break
				}
			}
			if n <= least {
				t.Errorf("only %d calls failed, expected %d", n-1, least)
			}
		})
	}
}

func TestAFailedWriteLeavesTheOldContentOrTheNew(t *testing.T) {
	forEveryFault(t, 4, func(t *testing.T, fl *flaky, revert bool) {
		dir := t.TempDir()
		path := filepath.Join(dir, "state.json")
		if err := plain.Write(path, state{Name: "old"}); err != nil {
			t.Fatal(err)
		}
		b, err := plain.Encode(state{Name: "new"})
		if err != nil {
			t.Fatal(err)
		}
		err = replaceFile(fl.disk(), path, b)
		if failed := fl.calls >= fl.n; failed != (err != nil) {
			t.Fatalf("call %d: error %v", fl.n, err)
		}
		if fl.crash {
			fl.lose(t, revert)
		} else {
			wantNoTemp(t, dir)
		}
		var got state
		if readErr := plain.Read(path, &got); readErr != nil {
			t.Fatalf("call %d: neither content is there: %v", fl.n, readErr)
		}
		if got.Name != "new" && (err == nil || got.Name != "old") {
			t.Errorf("call %d: write said %v, content is %q", fl.n, err, got.Name)
		}
	})
}

func TestAFailedCommitPublishesNothingAndNeverAPart(t *testing.T) {
	content := map[string]string{"a": "1", "sub/b": "2", "sub/deep/c": "3"}
	forEveryFault(t, 8, func(t *testing.T, fl *flaky, revert bool) {
		dir := t.TempDir()
		final := filepath.Join(dir, "image")
		s, err := NewSink(final, 0o700)
		if err != nil {
			t.Fatal(err)
		}
		s.disk = fl.disk()
		for name, text := range content {
			path := filepath.Join(s.Dir(), name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for ; path != dir; path = filepath.Dir(path) {
				fl.dirty[path] = true
			}
		}
		err = s.Commit()
		if failed := fl.calls >= fl.n; failed != (err != nil) {
			t.Fatalf("call %d: error %v", fl.n, err)
		}
		if fl.crash {
			fl.lose(t, revert)
		} else if err != nil {
			if _, statErr := os.Stat(final); statErr == nil {
				t.Errorf("call %d: commit failed and the directory is there", fl.n)
			}
			if err := s.Abort(); err != nil {
				t.Error(err)
			}
			wantNoTemp(t, dir)
		}
		wantAllOrNothing(t, final, content, err == nil)
	})
}

func wantAllOrNothing(t *testing.T, dir string, content map[string]string, must bool) {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		if must {
			t.Errorf("reported as committed and lost: %v", err)
		}
		return
	}
	for name, text := range content {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(b) != text {
			t.Errorf("%s is there with %s = %q, %v", dir, name, b, err)
		}
	}
}

func wantNoTemp(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
