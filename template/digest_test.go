package template

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

func digestOf(t *testing.T, dir string) string {
	t.Helper()
	d, _, err := Digest(context.Background(), dir)
	must(t, err)
	return d
}

// richTree has one of everything that a tree can hold.
func richTree(t *testing.T) string {
	t.Helper()
	dir := testutil.TempDir(t)
	writeTree(t, dir, map[string]string{
		"etc/passwd": "root:x:0:0\n", "usr/bin/tool": "#!/bin/sh\n", "usr/bin/plain": "x", "empty/": "",
		"name with\nnewline": "x",
	})
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Symlink("/etc/passwd", at("link")))
	must(t, os.Link(at("etc/passwd"), at("etc/hard")))
	must(t, unix.Mkfifo(at("fifo"), 0o640))
	must(t, unix.Mknod(at("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, os.Chown(at("usr/bin/tool"), 12, 34))
	must(t, unix.Chmod(at("usr/bin/tool"), 0o4755))
	must(t, unix.Setxattr(at("usr/bin/plain"), "user.note", []byte("hello"), 0))
	must(t, unix.Setxattr(at("usr/bin/plain"), "security.capability", capability, 0))
	must(t, unix.Lsetxattr(at("link"), "trusted.note", []byte("on a link"), 0))
	must(t, unix.Setxattr(at("empty"), "user.dir", []byte("d"), 0))
	f, err := os.Create(at("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 5<<20+17)
	must(t, err)
	must(t, f.Truncate(1<<30))
	must(t, f.Close())
	return dir
}

// capability is cap_net_raw+ep in revision 2 (capabilities(7)).
var capability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func TestTheDigestChangesWithEverythingThatMatters(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := richTree(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	seen := map[string]string{digestOf(t, dir): "the beginning"}
	steps := []struct {
		name   string
		change func() error
	}{
		{"content", func() error { return os.WriteFile(at("etc/passwd"), []byte("root:x:0:1\n"), 0o644) }},
		{"size by a zero", func() error { return os.WriteFile(at("etc/passwd"), []byte("root:x:0:1\n\x00"), 0o644) }},
		{"mode", func() error { return os.Chmod(at("etc/passwd"), 0o600) }},
		{"set-user-id bit", func() error { return unix.Chmod(at("usr/bin/tool"), 0o755) }},
		{"mode of a directory", func() error { return os.Chmod(at("empty"), 0o700) }},
		{"mode of the top", func() error { return os.Chmod(dir, 0o711) }},
		{"owner", func() error { return os.Chown(at("usr/bin/tool"), 13, 34) }},
		{"group", func() error { return os.Chown(at("usr/bin/tool"), 13, 35) }},
		{"owner of a link", func() error { return os.Lchown(at("link"), 1, 0) }},
		{"attribute value", func() error { return unix.Setxattr(at("usr/bin/plain"), "user.note", []byte("hellO"), 0) }},
		{"attribute more", func() error { return unix.Setxattr(at("usr/bin/plain"), "user.more", nil, 0) }},
		{"attribute of a link", func() error { return unix.Lremovexattr(at("link"), "trusted.note") }},
		{"capability", func() error { return unix.Removexattr(at("usr/bin/plain"), "security.capability") }},
		{"attribute of a directory", func() error { return unix.Removexattr(at("empty"), "user.dir") }},
		{"link target", func() error { return replaceLink(at("link"), "/etc/passwe") }},
		{"device numbers", func() error { return replaceDevice(at("dev"), unix.S_IFCHR, 5) }},
		{"device type", func() error { return replaceDevice(at("dev"), unix.S_IFBLK, 5) }},
		{"new name", func() error { return os.Mkdir(at("empty/x"), 0o755) }},
		{"renamed", func() error { return os.Rename(at("empty/x"), at("empty/y")) }},
		{"moved up", func() error { return os.Rename(at("empty/y"), at("y")) }},
		{"in a hole", func() error { return poke(at("sparse"), 900<<20) }},
		{"from one hole to another", func() error { return errors.Join(wipe(at("sparse"), 900<<20), poke(at("sparse"), 800<<20)) }},
		{"last byte", func() error { return poke(at("sparse"), 1<<30-1) }},
	}
	for _, s := range steps {
		must(t, s.change())
		now := digestOf(t, dir)
		if before, ok := seen[now]; ok {
			t.Errorf("%s: the digest is that of %s", s.name, before)
		}
		seen[now] = s.name
	}
	if len(seen) != len(steps)+1 {
		t.Errorf("only %v made a difference", slices.Sorted(maps.Values(seen)))
	}
}

func replaceLink(path, target string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.Symlink(target, path); err != nil {
		return err
	}
	return os.Lchown(path, 1, 0)
}

func replaceDevice(path string, kind uint32, minor uint32) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return unix.Mknod(path, kind|0o600, int(unix.Mkdev(1, minor)))
}

func poke(path string, off int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt([]byte{1}, off)
	return err
}

// wipe makes a byte zero again.
func wipe(path string, off int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt([]byte{0}, off)
	return err
}

// Digests are stored: what they describe must never change by accident.
func TestTheDigestOfAKnownTreeIsKnown(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	writeTree(t, dir, map[string]string{"b/a": "one", "b-a": "two", "a": strings.Repeat("x", blockBytes+1)})
	must(t, os.Symlink("b/a", filepath.Join(dir, "c")))
	must(t, unix.Mknod(filepath.Join(dir, "d"), unix.S_IFBLK|0o600, int(unix.Mkdev(8, 1))))
	must(t, unix.Setxattr(filepath.Join(dir, "a"), "user.y", []byte("1"), 0))
	must(t, unix.Setxattr(filepath.Join(dir, "a"), "user.x", []byte("2"), 0))
	for name, mode := range map[string]os.FileMode{".": 0o700, "a": 0o644, "b": 0o755, "b/a": 0o644, "b-a": 0o644} {
		must(t, os.Chmod(filepath.Join(dir, name), mode)) // whatever the umask
	}
	const want = "sha256:5e1325d2bd653c85c176ec239f5dc2ac49f4244e3e75d1d7d85bfd0cfa482e55"
	if got := digestOf(t, dir); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTheDigestDoesNotChangeWithWhatDoesNotMatter(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := richTree(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	want := digestOf(t, dir)
	steps := map[string]func() error{
		"times":           func() error { return os.Chtimes(at("etc/passwd"), time.Unix(1, 1), time.Unix(2, 2)) },
		"a filled hole":   func() error { return fill(at("sparse"), 64<<10) },
		"a host's label":  func() error { return unix.Setxattr(at("etc/passwd"), "trusted.overlay.origin", []byte("x"), 0) },
		"directory sizes": func() error { return growAndShrink(at("empty")) },
	}
	for name, change := range steps {
		must(t, change())
		if got := digestOf(t, dir); got != want {
			t.Errorf("%s changed the digest", name)
		}
	}
}

// fill writes zeros where a hole was.
func fill(path string, n int) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(make([]byte, n), 100)
	return err
}

func growAndShrink(dir string) error {
	var names []string
	for i := range 300 {
		names = append(names, filepath.Join(dir, "a-rather-long-name-"+time.Duration(i).String()))
		if err := os.WriteFile(names[i], nil, 0o644); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

func TestTheSizeCountsWhatIsOnDiskAndLinkedFilesOnce(t *testing.T) {
	dir := testutil.TempDir(t)
	testutil.Require(t, testutil.Root)
	_, empty, err := Digest(context.Background(), dir)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644))
	must(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	must(t, os.Truncate(filepath.Join(dir, "a"), 1<<40))
	_, got, err := Digest(context.Background(), dir)
	must(t, err)
	if got -= empty; got < 1<<20 || got > 2<<20-1 {
		t.Errorf("got %d bytes more for 1 MiB with two names and a hole of 1 TiB", got)
	}
}

func TestAMountPointInATreeHasNoDigest(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	writeTree(t, dir, map[string]string{"a/": "", "b/c": "x"})
	must(t, unix.Mount(filepath.Join(dir, "b"), filepath.Join(dir, "a"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(dir, "a"), 0)) })
	if d, _, err := Digest(context.Background(), dir); err == nil {
		t.Errorf("got %s", d)
	}
}

func TestADigestEndsWithItsContext(t *testing.T) {
	testutil.Require(t, testutil.Root)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInjected)
	if _, _, err := Digest(ctx, testutil.TempDir(t)); err == nil {
		t.Error("it went on")
	}
}
