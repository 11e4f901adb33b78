package container

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func writeLog(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func turnOver(t *testing.T, path string) {
	t.Helper()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
}

func TestALogIsReadInOrderAcrossTurnOvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	var out bytes.Buffer
	l := logFile{path: path, out: &out}
	defer l.close()
	step := func(do func() error, want string) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Fatalf("got %q, want %q", out.String(), want)
		}
		out.Reset()
	}
	step(l.older, "")
	step(l.more, "") // there is none yet
	writeLog(t, path, "a")
	step(l.more, "a")
	step(l.more, "")
	writeLog(t, path, "b")
	turnOver(t, path)
	step(l.more, "b")
	writeLog(t, path, "c")
	step(l.more, "c")
	writeLog(t, path, "d")
	turnOver(t, path)
	writeLog(t, path, "e")
	step(l.more, "de")

	again := logFile{path: path, out: &out}
	defer again.close()
	step(again.older, "cd")
	step(again.more, "e")
}

func TestALogThatWasTurnedOverMeanwhileIsNotReadTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	writeLog(t, path, "a")
	var out bytes.Buffer
	l := logFile{path: path, out: &out}
	defer l.close()
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	turnOver(t, path)
	writeLog(t, path, "b")
	for _, do := range []func() error{l.more, l.more} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if out.String() != "ab" {
		t.Errorf("got %q", out.String())
	}
}

func TestALogThatIsALinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "console.log")); err != nil {
		t.Fatal(err)
	}
	l := logFile{path: filepath.Join(dir, "console.log"), out: new(bytes.Buffer)}
	if err := l.more(); err == nil {
		t.Error("it was read")
	}
}
