package template

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

var sorted = cmpopts.SortSlices(func(a, b string) bool { return a < b })

// item is an entry of an archive that a test makes.
type item struct {
	tar.Header
	content string
}

func file(name, content string) item {
	return item{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content}
}

func dir(name string) item {
	return item{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func symlink(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

func link(name, target string) item {
	return item{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644}, ""}
}

func special(flag byte, name string) item {
	return item{tar.Header{Typeflag: flag, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
}

// pack writes a tar archive. What the tar package refuses to write is written
// under another name and patched in by hostileName.
func pack(t *testing.T, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h := i.Header
		h.Size = int64(len(i.content))
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, i.content)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// importBytes imports an archive beside a directory whose content must never
// change.
func importBytes(t *testing.T, m Manager, archive []byte) (Template, error) {
	t.Helper()
	base := filepath.Dir(filepath.Dir(m.Dir))
	outside := filepath.Join(base, "outside")
	writeTree(t, outside, map[string]string{"victim": "untouched", "dir/file": "untouched"})
	before := digestOf(t, outside)
	path := filepath.Join(base, "archive")
	must(t, os.WriteFile(path, archive, 0o600))
	made, err := m.Import(context.Background(), "one", path)
	if digestOf(t, outside) != before {
		t.Errorf("something outside changed")
	}
	entries, listed := os.ReadDir(base)
	must(t, listed)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"archive", "outside", "state"}, names); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
	return made, err
}

func TestHostileArchivesAreRefusedAndLeaveNothing(t *testing.T) {
	usr := dir("usr")
	huge := file("usr/huge", "")
	tests := map[string]struct {
		items []item
		want  error
	}{
		"absolute name":               {[]item{usr, file("/etc/cron.d/evil", "x")}, ErrArchive},
		"parent":                      {[]item{usr, file("../outside/victim", "x")}, ErrArchive},
		"parent in the middle":        {[]item{usr, file("usr/../../outside/victim", "x")}, ErrArchive},
		"parent of a directory":       {[]item{usr, dir("../outside/new")}, ErrArchive},
		"only the parent":             {[]item{usr, dir("..")}, ErrArchive},
		"hard link to absolute":       {[]item{usr, link("usr/x", "/etc/passwd")}, ErrArchive},
		"hard link to parent":         {[]item{usr, link("usr/x", "../../outside/victim")}, ErrArchive},
		"hard link to nothing":        {[]item{usr, link("usr/x", "usr/y")}, ErrArchive},
		"hard link to a directory":    {[]item{usr, dir("usr/d"), link("usr/x", "usr/d")}, ErrArchive},
		"hard link through a link":    {[]item{usr, symlink("out", "../../../outside"), link("usr/x", "out/victim")}, ErrArchive},
		"hard link through to proc":   {[]item{usr, symlink("self", "/proc/self/cwd"), link("usr/x", "self/victim")}, ErrArchive},
		"write below a dangling link": {[]item{usr, symlink("out", "/nowhere"), file("out/x", "x")}, ErrArchive},
		"write below a file":          {[]item{usr, file("f", ""), file("f/x", "x")}, ErrArchive},
		"links in a circle":           {[]item{usr, symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}, ErrArchive},
		"file over a full directory":  {[]item{usr, file("usr/a/b", ""), file("usr/a", "x")}, ErrArchive},
		"link over a full directory":  {[]item{usr, file("usr/a/b", ""), symlink("usr/a", "/")}, ErrArchive},
		"the top as a link":           {[]item{symlink(".", "/"), file("x", "x")}, ErrArchive},
		"the top as a file":           {[]item{file(".", "x")}, ErrArchive},
		"a very long name":            {[]item{usr, file("usr/"+strings.Repeat("x", 300), "")}, ErrArchive},
		"a very long path":            {[]item{usr, file(strings.Repeat("d/", 3000)+"x", "")}, ErrArchive},
		"owner 2^32-1":                {[]item{usr, {tar.Header{Typeflag: tar.TypeReg, Name: "usr/x", Uid: 1<<32 - 1, Format: tar.FormatGNU}, ""}}, ErrArchive},
		"negative owner":              {[]item{usr, {tar.Header{Typeflag: tar.TypeReg, Name: "usr/x", Gid: -5, Format: tar.FormatGNU}, ""}}, ErrArchive},
		"no capability":               {[]item{usr, withAttr(huge, "security.capability", "nonsense")}, ErrArchive},
		"too many entries":            {[]item{usr, file("usr/1", ""), file("usr/2", ""), file("usr/3", ""), file("usr/4", "")}, ErrLimit},
		"too many bytes":              {[]item{usr, file("usr/1", strings.Repeat("x", 40<<10)), file("usr/2", strings.Repeat("x", 40<<10))}, ErrLimit},
		"nothing at all":              {nil, ErrArchive},
		"no root":                     {[]item{dir("data"), file("data/readme", "x")}, ErrNotRoot},
		"a root one level down":       {[]item{file("rootfs/etc/passwd", ""), file("rootfs/bin/sh", ""), program("rootfs/bin/ls")}, ErrNotRoot},
		"devices only":                {[]item{special(tar.TypeChar, "null")}, ErrNotRoot},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, v := newManager(t)
			m.Limits = Limits{Entries: 4, Bytes: 64 << 10}
			_, err := importBytes(t, m, pack(t, test.items...))
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if left := leftovers(t, m, v); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func program(name string) item {
	i := file(name, "#!")
	i.Mode = 0o755
	return i
}

func withAttr(i item, name, value string) item {
	i.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	return i
}

// Entries below links are not refused, because root file systems have many
// links to directories; they land where the link leads inside the root.
func TestLinksLeadNowhereButIntoTheRoot(t *testing.T) {
	tests := map[string]struct {
		items []item
		want  map[string]string // files in the template
	}{
		"absolute": {
			[]item{dir("srv"), symlink("out", "/srv"), file("out/x", "in")},
			map[string]string{"srv/x": "in"},
		},
		"above the top": {
			[]item{dir("outside"), symlink("out", "../../../../../../outside"), file("out/victim", "in")},
			map[string]string{"outside/victim": "in"},
		},
		"a file replaces a link": {
			[]item{dir("etc"), symlink("etc/x", "../../../outside/victim"), file("etc/x", "in")},
			map[string]string{"etc/x": "in"},
		},
		"a file replaces an absolute link": {
			[]item{dir("etc"), file("etc/y", "old"), symlink("etc/x", "/etc/y"), file("etc/x", "in")},
			map[string]string{"etc/x": "in", "etc/y": "old"},
		},
		"a directory replaces a link": {
			[]item{dir("etc"), symlink("d", "../../outside/dir"), dir("d"), file("d/file", "in")},
			map[string]string{"d/file": "in"},
		},
		"a hard link to a link is one": {
			[]item{dir("etc"), symlink("etc/x", "/etc/y"), link("etc/z", "etc/x"), file("etc/y", "in")},
			map[string]string{"etc/z": "in"},
		},
		"a hard link through a link": {
			[]item{dir("usr/lib"), file("usr/lib/a", "in"), symlink("lib", "usr/lib"), link("b", "lib/a")},
			map[string]string{"b": "in"},
		},
		"a later file does not change what shares its inode": {
			[]item{dir("etc"), file("etc/a", "one"), link("etc/b", "etc/a"), file("etc/a", "two")},
			map[string]string{"etc/a": "two", "etc/b": "one"},
		},
		"a hard link to itself": {
			[]item{dir("etc"), file("etc/a", "one"), link("etc/a", "./etc/a")},
			map[string]string{"etc/a": "one"},
		},
		"without directories": {
			[]item{file("./etc/deep/er/a", "one")},
			map[string]string{"etc/deep/er/a": "one"},
		},
		"a file replaces an empty directory": {
			[]item{dir("etc/a"), file("etc/a", "one")},
			map[string]string{"etc/a": "one"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, v := newManager(t)
			made, err := importBytes(t, m, pack(t, append([]item{dir("usr")}, test.items...)...))
			must(t, err)
			for path, want := range test.want {
				top, err := openTop(v.Path(made.Volume))
				must(t, err)
				f, err := openAt(top, path, unix.O_RDONLY, 0, inRoot)
				must(t, errors.Join(err, top.Close()))
				got, err := io.ReadAll(f)
				must(t, errors.Join(err, f.Close()))
				if string(got) != want {
					t.Errorf("%s holds %q, want %q", path, got, want)
				}
			}
		})
	}
}

func TestAnArchiveKeepsWhatATarCanHold(t *testing.T) {
	m, v := newManager(t)
	when := time.Unix(1_600_000_000, 123_456_789)
	items := []item{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711, ModTime: when}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "usr/", Mode: 0o2755, Gid: 50, ModTime: when}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/su", Mode: 0o4755, Uid: 7, Gid: 8, ModTime: when}, "s"},
		withAttr(program("usr/ping"), "security.capability", string(capability)),
		withAttr(file("usr/note", ""), "user.note", "hello"),
		withAttr(file("usr/label", ""), "security.selinux", "system_u"),
		withAttr(file("usr/trust", ""), "trusted.overlay.opaque", "y"),
		special(tar.TypeFifo, "fifo"),
		special(tar.TypeChar, "null"), special(tar.TypeBlock, "disk"),
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "usr/su", Uid: 9, Gid: 9, Mode: 0o777, ModTime: when}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "usr/nobody", Uid: 70000, Mode: 0o644}, ""},
	}
	for i := range items {
		items[i].Format = tar.FormatPAX
	}
	log := captureLog(&m)
	made, err := importBytes(t, m, pack(t, items...))
	must(t, err)
	root := v.Path(made.Volume)
	for name, want := range map[string]string{
		".": "40711 0:0", "usr": "42755 0:50", "usr/su": "104755 7:8", "fifo": "10666 0:0", "l": "120777 9:9",
	} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(root, name), &st))
		if got := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
		if name != "fifo" && st.Mtim.Nano() != when.UnixNano() {
			t.Errorf("%s was changed %d, want %d", name, st.Mtim.Nano(), when.UnixNano())
		}
	}
	for name, want := range map[string]map[string][]byte{
		"usr/ping": {"security.capability": capability}, "usr/note": {"user.note": []byte("hello")},
		"usr/label": nil, "usr/trust": nil,
	} {
		f, err := os.Open(filepath.Join(root, name))
		must(t, err)
		got, err := readXattrs(f)
		must(t, errors.Join(err, f.Close()))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes of %s (-want +got):\n%s", name, diff)
		}
	}
	for _, name := range []string{"null", "disk"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("device %s: %v", name, err)
		}
	}
	for _, want := range []string{"devices=2", "ids_above_65535=1"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log: %s", want, log)
		}
	}
}

// Not through Import, whose snapshot may make holes of its own.
func TestHolesInAnArchiveStayHoles(t *testing.T) {
	testutil.Require(t, testutil.Root)
	base := testutil.TempDir(t)
	content := strings.Repeat("\x00", 4<<20) + "end" + strings.Repeat("\x00", 100)
	top, err := openTop(base)
	must(t, err)
	_, err = extract(context.Background(), top, bytes.NewReader(pack(t, file("sparse", content))), Limits{})
	must(t, errors.Join(err, top.Close()))
	path := filepath.Join(base, "sparse")
	if read(t, path) != content {
		t.Error("the content changed")
	}
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	if st.Blocks*512 > 64<<10 {
		t.Errorf("it occupies %d bytes", st.Blocks*512)
	}
}

// A sparse entry needs hardly any bytes in the archive.
func TestTheBytesOfAllFilesCountTogether(t *testing.T) {
	x := &extractor{limits: Limits{Bytes: 100}.withDefaults()}
	must(t, x.count(&tar.Header{Size: 60}))
	must(t, x.count(&tar.Header{Size: 40}))
	if err := x.count(&tar.Header{Size: 1}); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v, want ErrLimit", err)
	}
	if err := x.count(&tar.Header{Size: -1}); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v, want ErrLimit", err)
	}
}

func FuzzEntryNamesNeverLeaveTheTop(f *testing.F) {
	for _, s := range []string{"a/b", "./a", "../a", "/a", "a/../../b", "a//b/.", ".", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := entryName(s)
		if err == nil && !filepath.IsLocal(name) {
			t.Errorf("%q becomes %q", s, name)
		}
	})
}

func FuzzExtractionOfAnyBytesStaysInside(f *testing.F) {
	f.Add([]byte("not an archive"))
	if os.Geteuid() != 0 {
		f.Skip("needs root")
	}
	testutil.Require(f, testutil.Root)
	f.Fuzz(func(t *testing.T, b []byte) {
		base := t.TempDir()
		must(t, os.Mkdir(filepath.Join(base, "root"), 0o755))
		top, err := openTop(filepath.Join(base, "root"))
		must(t, err)
		_, err = extract(context.Background(), top, bytes.NewReader(b), Limits{Entries: 100, Bytes: 1 << 20})
		must(t, top.Close())
		if err == nil && len(b) == 0 {
			t.Error("nothing is an archive")
		}
		names, err := filepath.Glob(filepath.Join(base, "*"))
		must(t, err)
		if len(names) != 1 {
			t.Errorf("outside: %v", names)
		}
	})
}
