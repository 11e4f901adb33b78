package runc

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/profile"
	"golang.org/x/sys/unix"
)

func openDir(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestFilesLinksAndProgramsAreWrittenIntoRun(t *testing.T) {
	dir := t.TempDir()
	err := writeFiles(openDir(t, dir), []profile.File{
		{Path: "top", Text: "0"},
		{Path: "systemd/system/a.service.d/10.conf", Text: "[Service]\n"},
		{Path: "systemd/system/b.mount", Link: "/dev/null"},
		{Path: "systemd/system-generators/g", Text: "#!/bin/sh\n", Program: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"top":                                {"0", 0o644},
		"systemd/system/a.service.d/10.conf": {"[Service]\n", 0o644},
		"systemd/system-generators/g":        {"#!/bin/sh\n", 0o755},
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		fi, err2 := os.Stat(filepath.Join(dir, name))
		if err != nil || err2 != nil || string(b) != want.text || fi.Mode().Perm()&^0o022 != want.mode&^0o022 {
			t.Errorf("%s: %q, %v, %v, %v", name, b, fi.Mode(), err, err2)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "systemd/system/b.mount")); err != nil || to != "/dev/null" {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestNothingIsWrittenThroughLinksOverFilesOrOutOfRun(t *testing.T) {
	for name, file := range map[string]profile.File{
		"out of it":           {Path: "../x", Text: "x"},
		"absolute":            {Path: "/x", Text: "x"},
		"through a link":      {Path: "link/x", Text: "x"},
		"over a file":         {Path: "file", Text: "x"},
		"a link over a file":  {Path: "file", Link: "/dev/null"},
		"below a file":        {Path: "file/x", Text: "x"},
		"to where a link is":  {Path: "dangling", Text: "x"},
		"deep through a link": {Path: "link/a/b/x", Text: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, outside := t.TempDir(), t.TempDir()
			if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(outside, "new"), filepath.Join(dir, "dangling")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := writeFiles(openDir(t, dir), []profile.File{file}); err == nil {
				t.Error("no error")
			}
			if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "old" {
				t.Errorf("the file is %q, %v", b, err)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("outside: %v, %v", left, err)
			}
		})
	}
}

func TestARootWithoutATmpfsOnRunIsRefused(t *testing.T) {
	// This process's own /run need not be one; /proc/PID/root leads there.
	var st unix.Statfs_t
	if err := unix.Statfs("/run", &st); err != nil || st.Type == unix.TMPFS_MAGIC {
		t.Skip("/run is a tmpfs here")
	}
	if err := inject(os.Getpid(), nil, []profile.File{{Path: "ctctl-test/x", Text: "x"}}); err == nil {
		t.Error("no error")
	}
}
