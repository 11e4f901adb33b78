package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func writeBelow(t *testing.T, dir, name, text string) error {
	t.Helper()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	return writeIn(root, name, text)
}

// A reader that waits for the other end of a fifo would hear of it if that were
// opened for writing.
func TestWhatIsNoFileIsNotEvenOpened(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := writeBelow(t, dir, "fifo", "text"); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
	// POLLHUP says that there was a writer and is none any more.
	ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(ready, 0); err != nil || ready[0].Revents != 0 {
		t.Errorf("it was opened: %#x, %v", ready[0].Revents, err)
	}
}

func TestAFileIsReplacedOrMadeWhereItsNameLeads(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"was", "link"} {
		if err := os.WriteFile(filepath.Join(dir, "was"), []byte("a longer text than what comes"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/new", filepath.Join(dir, "link")); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
		for _, text := range []string{"text", "shorter"} {
			if err := writeBelow(t, dir, name, text); err != nil {
				t.Fatal(err)
			}
			at := map[string]string{"was": "was", "link": "new"}[name]
			if got, err := os.ReadFile(filepath.Join(dir, at)); err != nil || string(got) != text {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
	}
	if err := writeBelow(t, dir, "absent/file", "text"); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
