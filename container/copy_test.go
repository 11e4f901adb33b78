package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// plant makes files below dir: "a" a file with its name as content, "d/" a
// directory, "l -> target" a link, "f|" a fifo, "s!" a file with set-user-id.
func plant(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		var err error
		link, target, isLink := strings.Cut(n, " -> ")
		path := filepath.Join(dir, strings.TrimRight(link, "/|!"))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		switch {
		case isLink:
			err = os.Symlink(target, path)
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(path, 0o750)
		case strings.HasSuffix(n, "|"):
			err = unix.Mkfifo(path, 0o644)
		case strings.HasSuffix(n, "!"):
			if err = os.WriteFile(path, []byte(n), 0o755); err == nil {
				err = os.Chmod(path, 0o755|fs.ModeSetuid)
			}
		default:
			err = os.WriteFile(path, []byte(n), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// look lists what is below dir: path, permissions, content or target.
func look(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		text := ""
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			text, err = os.Readlink(p)
		case d.Type().IsRegular():
			var b []byte
			b, err = os.ReadFile(p)
			text = string(b)
		}
		if d.Type()&fs.ModeSymlink == 0 {
			text = fmt.Sprintf("%v %s", fi.Mode(), text)
		}
		list = append(list, strings.TrimSpace(rel+" "+text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// inside is an end whose root is dir, like a container's.
func inside(t *testing.T, dir, path string) *end {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &end{Place: Place{Container: "ct", Path: path}, root: fd}
}

func onHost(path string) *end { return &end{Place: Place{Path: path}, root: unix.AT_FDCWD} }

func TestCopyingGoesWhereCpWould(t *testing.T) {
	tests := map[string]struct {
		src, dst string // below the root of a container
		into     []string
		want     []string
	}{
		"a file to a name":           {"a", "/x", nil, []string{"x -rw-r----- a"}},
		"a file to a directory":      {"a", "/d", []string{"d/"}, []string{"d drwxr-x---", "d/a -rw-r----- a"}},
		"a file over a file":         {"a", "x", []string{"x"}, []string{"x -rw-r----- a"}},
		"a file over a link":         {"a", "x", []string{"x -> /etc/passwd"}, []string{"x -rw-r----- a"}},
		"a directory to a name":      {"t", "x", nil, []string{"x drwxr-xr-x", "x/b -rw-r----- t/b", "x/l ../a", "x/s -rwxr-xr-x t/s!"}},
		"a directory to a directory": {"t/", "d/", []string{"d/"}, []string{"d drwxr-x---", "d/t drwxr-xr-x", "d/t/b -rw-r----- t/b", "d/t/l ../a", "d/t/s -rwxr-xr-x t/s!"}},
		"what is in a directory":     {"t/.", "d", []string{"d/"}, []string{"d drwxr-x---", "d/b -rw-r----- t/b", "d/l ../a", "d/s -rwxr-xr-x t/s!"}},
		"what is in it, new":         {"t/.", "d", nil, []string{"d drwxr-xr-x", "d/b -rw-r----- t/b", "d/l ../a", "d/s -rwxr-xr-x t/s!"}},
		"a directory that is there":  {"t", "", []string{"t/c"}, []string{"t drwxr-xr-x", "t/b -rw-r----- t/b", "t/c -rw-r----- t/c", "t/l ../a", "t/s -rwxr-xr-x t/s!"}},
		"through a link inside":      {"a", "l/x", []string{"d/", "l -> /d"}, []string{"d drwxr-x---", "d/x -rw-r----- a", "l /d"}},
		"never out of the root":      {"a", "l/x", []string{"d/", "l -> ../../../d"}, []string{"d drwxr-x---", "d/x -rw-r----- a", "l ../../../d"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			src, dst := t.TempDir(), t.TempDir()
			plant(t, src, "a", "t/b", "t/l -> ../a", "t/s!")
			plant(t, dst, tt.into...)
			if err := copyBetween(t.Context(), onHost(src+"/"+tt.src), inside(t, dst, tt.dst)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, look(t, dst)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCopyingOutStaysBelowTheContainersRoot(t *testing.T) {
	outside, root, dst := t.TempDir(), t.TempDir(), t.TempDir()
	plant(t, outside, "secret")
	plant(t, root, "etc/passwd", "up -> "+outside, "file -> "+outside+"/secret")
	for _, path := range []string{"up/secret", "file", "../../" + outside + "/secret", outside + "/secret"} {
		err := copyBetween(t.Context(), inside(t, root, path), onHost(dst))
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if err := copyBetween(t.Context(), inside(t, root, "../../etc/passwd"), onHost(dst)); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"passwd -rw-r----- etc/passwd"}, look(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func TestALinkThatWasCopiedOutIsNotWrittenThrough(t *testing.T) {
	outside, root, dst := t.TempDir(), t.TempDir(), t.TempDir()
	plant(t, root, "t/d/passwd")
	plant(t, dst, "t/", "t/d -> "+outside)
	if err := copyBetween(t.Context(), inside(t, root, "t"), onHost(dst)); err == nil {
		t.Error("no error")
	}
	if got := look(t, outside); len(got) > 0 {
		t.Errorf("written outside: %v", got)
	}
}

func TestWhatCanNotBeCopiedIsNamedAndTheRestIsCopied(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	plant(t, src, "t/a", "t/f|", "t/z")
	err := copyBetween(t.Context(), onHost(src+"/t"), inside(t, dst, "x"))
	if !errors.Is(err, ErrNoSupport) || !strings.Contains(err.Error(), "t/f") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"x drwxr-xr-x", "x/a -rw-r----- t/a", "x/z -rw-r----- t/z"}, look(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func TestADirectoryIsNotCopiedIntoItself(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "a", "b/c")
	if err := copyBetween(t.Context(), inside(t, root, "/"), inside(t, root, "b/copy")); err == nil || !strings.Contains(err.Error(), "into itself") {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatCanNotBeFinishedLeavesNothing(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	plant(t, src, "a")
	plant(t, dst, "a/")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyBetween(ctx, onHost(src+"/a"), inside(t, dst, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	plant(t, dst, "d/a/keep")
	if err := copyBetween(t.Context(), onHost(src+"/a"), inside(t, dst, "d")); err == nil {
		t.Error("a file replaced a directory")
	}
	if diff := cmp.Diff([]string{"a drwxr-x---", "d drwxr-xr-x", "d/a drwxr-xr-x", "d/a/keep -rw-r----- d/a/keep"}, look(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsNoFileOnTheHostIsWrittenWhereItIs(t *testing.T) {
	root, dst := t.TempDir(), t.TempDir()
	plant(t, root, "a")
	plant(t, dst, "f|", "old file with more in it", "l -> old file with more in it")
	r, err := os.OpenFile(dst+"/f", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"f", "l"} {
		if err := copyBetween(t.Context(), inside(t, root, "a"), onHost(dst+"/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 10)
	if n, _ := r.Read(buf); string(buf[:n]) != "a" {
		t.Errorf("the fifo gave %q", buf[:n])
	}
	want := []string{"f prw-r--r--", "l old file with more in it", "old file with more in it -rw-r----- a"}
	if diff := cmp.Diff(want, look(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func TestFilesMadeForAContainerBelongToItsRoot(t *testing.T) {
	testutil.Require(t, testutil.Root)
	src, dst := t.TempDir(), t.TempDir()
	plant(t, src, "t/a", "t/l -> a")
	if err := os.Chown(src+"/t/a", 1234, 1234); err != nil {
		t.Fatal(err)
	}
	const owner = idBase + idSize
	err := asOwner(owner, func() error { return copyBetween(t.Context(), onHost(src+"/t"), inside(t, dst, "/")) })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"t", "t/a", "t/l"} {
		fi, err := os.Lstat(filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != owner || st.Gid != owner {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	if uid, _ := unix.SetfsuidRetUid(-1); uid != os.Geteuid() {
		t.Errorf("this thread has become user %d", uid)
	}
}

func TestPlaces(t *testing.T) {
	for in, want := range map[string]Place{
		"web1:/etc": {"web1", "/etc"}, "web1:": {"web1", ""}, "./a:b": {"", "./a:b"}, "/a:b": {"", "/a:b"}, "a": {"", "a"}, "Web1:/x": {"", "Web1:/x"},
	} {
		if got := ParsePlace(in); got != want {
			t.Errorf("%s: got %+v", in, got)
		}
	}
}
