package statefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestRemoveTreeRemovesEverythingButNotWhatLinksPointTo(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	fill(t, filepath.Join(dir, "outside", "precious"))
	fill(t, filepath.Join(tree, "a", "b", "c"))
	fill(t, filepath.Join(tree, ".removed-1")) // the name it uses itself
	for _, name := range []string{"link", "a/link"} {
		if err := os.Symlink(filepath.Join(dir, "outside"), filepath.Join(tree, name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second time it is absent
		if err := RemoveTree(tree); err != nil {
			t.Fatal(err)
		}
	}
	if exists(tree) || !exists(filepath.Join(dir, "outside", "precious")) {
		t.Error("removed too little or too much")
	}
	if err := RemoveTree(filepath.Join(dir, "no", "parent")); err != nil {
		t.Error(err)
	}
}

func TestRemoveTreeOfALinkRemovesTheLink(t *testing.T) {
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "outside", "precious"))
	link := filepath.Join(dir, "link")
	if err := os.Symlink("outside", link); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(link); err != nil {
		t.Fatal(err)
	}
	if exists(link) || !exists(filepath.Join(dir, "outside", "precious")) {
		t.Error("removed too little or too much")
	}
}

func TestRemoveTreeCopesWithAnyDepth(t *testing.T) {
	const depth = 3*maxDepth + 7 // far over PATH_MAX with these names
	top := filepath.Join(t.TempDir(), "tree")
	fill(t, filepath.Join(top, ".removed-2", "x"))
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 60)
	for range depth {
		if err := unix.Mkdirat(at, name, 0o700); err != nil {
			t.Fatal(err)
		}
		below, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err := errors.Join(err, unix.Close(at)); err != nil {
			t.Fatal(err)
		}
		at = below
	}
	if err := unix.Close(at); err != nil {
		t.Fatal(err)
	}
	limitDescriptors(t, 2*maxDepth)
	if err := RemoveTree(top); err != nil {
		t.Fatal(err)
	}
	if exists(top) {
		t.Error("still there")
	}
}

func limitDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
}

// inMountNamespace runs f on a thread with a mount namespace of its own, which
// ends with the thread. f must not call t.Fatal.
func inMountNamespace(t *testing.T, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CTCTL_TEST_STRICT") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRemoveTreeRefusesMountPointsAndRemovesNothing(t *testing.T) {
	tests := map[string]struct {
		target string
		mount  func(precious, target string) error
	}{
		"bind mount below":      {"a/b", bind},
		"bind mount at the top": {"", bind},
		"file system below":     {"a/b", tmpfs},
		"bind mount of a file":  {"a/file", func(p, t string) error { return bind(filepath.Join(p, "data"), t) }},
		"name with a space":     {"a/with space", tmpfs},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tree, precious := filepath.Join(dir, "tree"), filepath.Join(dir, "precious")
			target := filepath.Join(tree, tt.target)
			fill(t, filepath.Join(precious, "data"))
			fill(t, filepath.Join(tree, "0first"))
			fill(t, filepath.Join(tree, "a", "b", "c"))
			fill(t, filepath.Join(tree, "a", "with space", "c"))
			fill(t, filepath.Join(tree, "a", "file"))
			inMountNamespace(t, func() error {
				if err := tt.mount(precious, target); err != nil {
					return err
				}
				for _, path := range []string{tree, filepath.Join(dir, "tree", ".")} {
					if err := RemoveTree(path); !errors.Is(err, ErrMounted) {
						return fmt.Errorf("got %w", err)
					}
				}
				return unix.Unmount(target, 0)
			})
			for _, path := range []string{tree + "/0first", tree + "/a/b/c", precious + "/data"} {
				if !exists(path) {
					t.Errorf("%s was removed", path)
				}
			}
		})
	}
}

// What is mounted after mountinfo was read is met only while removing.
func TestARemovalThatMeetsAMountStopsThere(t *testing.T) {
	for name, mount := range map[string]func(precious, target string) error{"bind": bind, "tmpfs": tmpfs} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			precious := filepath.Join(dir, "precious")
			fill(t, filepath.Join(precious, "data"))
			fill(t, filepath.Join(dir, "tree", "a", "b", "c"))
			inMountNamespace(t, func() error {
				target := filepath.Join(dir, "tree", "a", "b")
				if err := mount(precious, target); err != nil {
					return err
				}
				at, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				r := remover{at: at, name: "tree"}
				if err := r.run(); !errors.Is(err, ErrMounted) {
					return fmt.Errorf("got %w", err)
				}
				return errors.Join(unix.Close(at), unix.Unmount(target, 0))
			})
			if !exists(filepath.Join(precious, "data")) || !exists(filepath.Join(dir, "tree", "a", "b", "c")) {
				t.Error("something was removed")
			}
		})
	}
}

func TestSweepTempLeavesMountPointsAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	fill(t, filepath.Join(dir, "precious", "data"))
	fill(t, filepath.Join(dir, "a.tmp", "x"))
	fill(t, filepath.Join(dir, "b.tmp"))
	inMountNamespace(t, func() error {
		if err := bind(filepath.Join(dir, "precious"), filepath.Join(dir, "a.tmp")); err != nil {
			return err
		}
		removed, err := SweepTemp(dir)
		if diff := cmp.Diff([]string{"b.tmp"}, removed); diff != "" || !errors.Is(err, ErrMounted) {
			return fmt.Errorf("removed %v, error %w", removed, err)
		}
		return unix.Unmount(filepath.Join(dir, "a.tmp"), 0)
	})
	if !exists(filepath.Join(dir, "precious", "data")) {
		t.Error("the mounted directory was emptied")
	}
}

func bind(precious, target string) error {
	return unix.Mount(precious, target, "", unix.MS_BIND, "")
}

func tmpfs(_, target string) error {
	return unix.Mount("tmpfs", target, "tmpfs", 0, "size=64k")
}

func TestParseMountPoints(t *testing.T) {
	got, err := parseMountPoints(`21 1 8:1 / / rw - ext4 /dev/root rw
22 21 0:5 / /a\040b\134c\011d rw shared:1 - tmpfs none rw
23 21 0:6 / /end\04 rw - tmpfs none rw
`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/", "/a b\\c\td", `/end\04`}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseMountPoints("21 1\n"); err == nil {
		t.Error("a short line was accepted")
	}
}

func TestMountAtOrBelow(t *testing.T) {
	mounts := []string{"/", "/var", "/var/lib/x"}
	for path, want := range map[string]bool{
		"/": true, "/var": true, "/var/lib": true, "/var/lib/x": true,
		"/va": false, "/var/lib/x/y": false, "/var/lib/x2": false,
	} {
		if _, got := mountAtOrBelow(mounts, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
