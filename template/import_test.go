package template

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

func captureLog(m *Manager) *bytes.Buffer {
	b := &bytes.Buffer{}
	m.Log = slog.New(slog.NewTextHandler(b, nil))
	return b
}

func compress(t *testing.T, b []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	must(t, err)
	_, err = w.Write(b)
	must(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

func asGzip(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

func asXZ(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }

func asZstd(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }

var writers = map[string]func(io.Writer) (io.WriteCloser, error){"gzip": asGzip, "xz": asXZ, "zstd": asZstd}

// bzipped is a bzip2 archive of the directory "etc", which Go can't make.
const bzipped = "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\x5b\xca\x40\xef\x00\x00\x6d\xfb\x80\xc8\x80\x00\x10\x40\x00\xd3\x80\x00\x04\x6a\x00\x1e\x00\x00\x08\x20\x00\x54\x32\x80\x00\x07\xa8\x22\x8a\x7a\x9a\x03\x40\x1f\x5b\x49\x14\x33\xa4\x44\x8e\xea\xc6\x45\x62\x82\x40\x41\xd4\xed\x09\x84\x09\xc4\xa1\xb2\xbb\x31\x97\xc0\xf8\x6b\x89\x25\x22\x48\x1f\x17\x72\x45\x38\x50\x90\x5b\xca\x40\xef"

func TestEveryCompressionGivesTheSameTemplate(t *testing.T) {
	plain := pack(t, dir("etc"), file("etc/os-release", strings.Repeat("ID=small\n", 1000)), program("sbin/init"))
	m, _ := newManager(t)
	want, err := importBytes(t, m, plain)
	must(t, err)
	if want.Init != "/sbin/init" || want.Digest == "" || want.SizeBytes == 0 {
		t.Errorf("incomplete: %+v", want)
	}
	for name, open := range writers {
		m, _ := newManager(t)
		got, err := importBytes(t, m, compress(t, plain, open))
		must(t, err)
		if got.Digest != want.Digest {
			t.Errorf("%s: another digest", name)
		}
	}
	m, _ = newManager(t)
	if _, err := importBytes(t, m, []byte(bzipped)); err != nil {
		t.Errorf("bzip2: %v", err)
	}
}

func TestWhatIsNoArchiveSaysSo(t *testing.T) {
	plain := pack(t, dir("etc"), file("etc/a", strings.Repeat("some text ", 10000)))
	tests := map[string]struct {
		bytes []byte
		says  string
	}{
		"empty":               {nil, "empty"},
		"zeros":               {make([]byte, 4096), "empty"},
		"text":                {[]byte(strings.Repeat("hello\n", 1000)), "not a tar archive"},
		"short text":          {[]byte("hi"), ""},
		"an image":            {append([]byte("\x7fELF"), make([]byte, 4096)...), "not a tar archive"},
		"gzip of text":        {compress(t, []byte(strings.Repeat("hello\n", 1000)), asGzip), "not a tar archive"},
		"gzip header only":    {[]byte("\x1f\x8b\x08"), "decompress"},
		"xz header only":      {[]byte("\xfd7zXZ\x00"), "decompress"},
		"zstd header only":    {[]byte("\x28\xb5\x2f\xfd"), "decompress"},
		"truncated":           {plain[:len(plain)/2], "unexpected EOF"},
		"truncated gzip":      {cut(compress(t, plain, asGzip), 20), "decompress"},
		"truncated xz":        {cut(compress(t, plain, asXZ), 20), "decompress"},
		"truncated zstd":      {cut(compress(t, plain, asZstd), 5), "decompress"},
		"wrong gzip checksum": {flip(compress(t, plain, asGzip), 6), "checksum"},
		"wrong zstd checksum": {flip(compress(t, plain, asZstd), 2), "decompress"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, v := newManager(t)
			_, err := importBytes(t, m, test.bytes)
			if !errors.Is(err, ErrArchive) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want ErrArchive with %q", err, test.says)
			}
			if left := leftovers(t, m, v); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

// flip changes the n-th last byte.
func flip(b []byte, n int) []byte {
	b[len(b)-n] ^= 1
	return b
}

// bomb is n bytes of zeros in one file, compressed.
func bomb(t *testing.T, n int) []byte {
	t.Helper()
	return compress(t, pack(t, dir("etc"), file("etc/zeros", strings.Repeat("\x00", n))), asZstd)
}

func TestAnArchiveThatExpandsTooMuchIsRefused(t *testing.T) {
	for name, l := range map[string]Limits{"ratio": {}, "bytes": {Bytes: 100 << 20, Ratio: 1 << 40}} {
		m, v := newManager(t)
		m.Limits = l
		_, err := importBytes(t, m, bomb(t, 300<<20))
		if !errors.Is(err, ErrLimit) || !errors.Is(err, ErrArchive) {
			t.Errorf("%s: got %v, want ErrLimit", name, err)
		}
		if left := leftovers(t, m, v); len(left) != 0 {
			t.Errorf("%s left: %v", name, left)
		}
	}
	m, _ := newManager(t)
	m.Limits.Ratio = 1 << 40
	if _, err := importBytes(t, m, bomb(t, 300<<20)); err != nil {
		t.Errorf("with another limit: %v", err)
	}
}

func TestAnImportThatIsCancelledLeavesNothing(t *testing.T) {
	m, v := newManager(t)
	ctx, cancel := context.WithCancel(context.Background())
	m.Progress = func(what string) {
		if strings.HasPrefix(what, "copying") {
			cancel()
		}
	}
	if _, err := m.Import(ctx, "one", smallRoot(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestACopiedDirectoryIsTheSame(t *testing.T) {
	m, v := newManager(t)
	src := richTree(t)
	must(t, os.Remove(filepath.Join(src, "dev"))) // the only thing that is left out
	must(t, unix.Setxattr(filepath.Join(src, "empty"), "system.posix_acl_default", defaultACL, 0))
	must(t, os.Chmod(src, 0o751))
	made, err := m.Import(context.Background(), "one", src)
	must(t, err)
	if want := digestOf(t, src); made.Digest != want {
		t.Errorf("digest %s, want %s", made.Digest, want)
	}
	dst := v.Path(made.Volume)
	must(t, filepath.WalkDir(src, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(path, &a), unix.Lstat(filepath.Join(dst, rel), &b)); err != nil {
			return err
		}
		if a.Mtim != b.Mtim {
			t.Errorf("%q: time %v became %v", rel, a.Mtim, b.Mtim)
		}
		if a.Mode&unix.S_IFMT != unix.S_IFDIR && a.Nlink != b.Nlink {
			t.Errorf("%q: %d names became %d", rel, a.Nlink, b.Nlink)
		}
		if b.Blocks > a.Blocks+8 {
			t.Errorf("%q: %d blocks became %d", rel, a.Blocks, b.Blocks)
		}
		return nil
	}))
}

// defaultACL is user::rwx,user:12:rwx,group::---,mask::rwx,other::--- (acl(5)).
var defaultACL = []byte{
	2, 0, 0, 0,
	1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff,
	2, 0, 7, 0, 12, 0, 0, 0,
	4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
	0x10, 0, 7, 0, 0xff, 0xff, 0xff, 0xff,
	0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
}

func TestADirectoryIsCopiedWithoutDevicesSocketsAndMounts(t *testing.T) {
	m, v := newManager(t)
	src := richTree(t)
	at := func(name string) string { return filepath.Join(src, name) }
	l, err := net.Listen("unix", at("socket"))
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	other := testutil.TempDir(t)
	writeTree(t, other, map[string]string{"secret": "x"})
	writeTree(t, src, map[string]string{"mnt/below": "hidden", "file": ""})
	must(t, unix.Mount(other, at("mnt"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(at("mnt"), 0)) })
	must(t, unix.Mount(filepath.Join(other, "secret"), at("file"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(at("file"), 0)) })
	log := captureLog(&m)
	made, err := m.Import(context.Background(), "one", src)
	must(t, err)
	dst := v.Path(made.Volume)
	for _, name := range []string{"dev", "socket", "mnt/secret", "mnt/below", "file"} {
		if _, err := os.Lstat(filepath.Join(dst, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st, err := os.Stat(filepath.Join(dst, "mnt")); err != nil || !st.IsDir() {
		t.Errorf("mount point: %v", err)
	}
	for _, want := range []string{"devices=1", "sockets=1", "mounts=2"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log: %s", want, log)
		}
	}
}

func TestTheStateDirectoryIsNeverImported(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	state := filepath.Dir(m.Dir)
	writeTree(t, v.root, map[string]string{"container/etc/shadow": "x"})
	elsewhere := testutil.TempDir(t)
	must(t, os.Symlink(state, filepath.Join(elsewhere, "link")))
	writeTree(t, elsewhere, map[string]string{"bind/": ""})
	bind := filepath.Join(elsewhere, "bind")
	must(t, unix.Mount(state, bind, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(bind, 0)) })
	// Its parent directory has the same inode.
	writeTree(t, v.root, map[string]string{"container/itself/": ""})
	container := filepath.Join(v.root, "container")
	must(t, unix.Mount(container, filepath.Join(container, "itself"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(filepath.Join(container, "itself"), 0)) })
	for _, source := range []string{
		filepath.Join(container, "itself"), state, v.root, filepath.Join(v.root, "container"), filepath.Join(elsewhere, "link/volumes/container"),
		filepath.Join(bind, "volumes/container"),
	} {
		if _, err := m.Import(ctx, "one", source); !errors.Is(err, ErrSource) {
			t.Errorf("%s: got %v, want ErrSource", source, err)
		}
	}
	writeTree(t, filepath.Dir(state), map[string]string{"etc/hostname": "x"})
	made, err := m.Import(ctx, "around", filepath.Dir(state))
	must(t, err)
	var names []string
	must(t, filepath.WalkDir(v.Path(made.Volume), func(path string, _ os.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, v.Path(made.Volume)))
		return err
	}))
	if diff := cmp.Diff([]string{"", "/etc", "/etc/hostname", "/state"}, names); diff != "" {
		t.Errorf("copied (-want +got):\n%s", diff)
	}
}

func TestOnlyFilesAndDirectoriesAreSources(t *testing.T) {
	m, v := newManager(t)
	dir := testutil.TempDir(t)
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	for _, source := range []string{filepath.Join(dir, "absent"), filepath.Join(dir, "fifo"), "/dev/zero"} {
		if _, err := m.Import(context.Background(), "one", source); !errors.Is(err, ErrSource) {
			t.Errorf("%s: got %v, want ErrSource", source, err)
		}
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestARootFileSystemIsKnownByItsDirectoriesOrAProgram(t *testing.T) {
	testutil.Require(t, testutil.Root)
	tests := map[string]struct {
		files map[string]string
		exec  string
		ok    bool
	}{
		"etc":                     {map[string]string{"etc/": ""}, "", true},
		"one static program":      {map[string]string{"app": "x"}, "app", true},
		"a program further down":  {map[string]string{"opt/app/bin/app": "x"}, "opt/app/bin/app", true},
		"nothing":                 {nil, "", false},
		"documents":               {map[string]string{"a.txt": "x", "b/c.txt": "x"}, "", false},
		"a file called usr":       {map[string]string{"usr": "x"}, "", false},
		"a root in a directory":   {map[string]string{"debian/etc/": "", "debian/usr/bin/x": "x"}, "debian/usr/bin/x", false},
		"a root among other ones": {map[string]string{"a/etc/x": "", "a/bin/y": "x", "b/": ""}, "a/bin/y", true},
	}
	for name, test := range tests {
		dir := testutil.TempDir(t)
		writeTree(t, dir, test.files)
		if test.exec != "" {
			must(t, os.Chmod(filepath.Join(dir, test.exec), 0o755))
		}
		top, err := openTop(dir)
		must(t, err)
		err = checkRoot(context.Background(), top)
		must(t, top.Close())
		if test.ok != (err == nil) || !test.ok && !errors.Is(err, ErrNotRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheInitIsFoundInsideTheRootOnly(t *testing.T) {
	testutil.Require(t, testutil.Root)
	tests := map[string]struct {
		links map[string]string
		files []string // executable
		want  string
	}{
		"none":                  {nil, []string{"bin/sh"}, ""},
		"a program":             {nil, []string{"sbin/init"}, "/sbin/init"},
		"merged":                {map[string]string{"sbin": "usr/sbin", "usr/sbin/init": "/lib/systemd/systemd", "lib": "usr/lib"}, []string{"usr/lib/systemd/systemd"}, "/sbin/init"},
		"without sysv":          {map[string]string{"lib": "usr/lib"}, []string{"usr/lib/systemd/systemd"}, "/lib/systemd/systemd"},
		"not merged":            {nil, []string{"usr/lib/systemd/systemd"}, "/usr/lib/systemd/systemd"},
		"a link out":            {map[string]string{"sbin/init": "../../../../../../../bin/sh"}, []string{"etc/x"}, ""},
		"an absolute link out":  {map[string]string{"sbin/init": "/bin/sh"}, []string{"etc/x"}, ""},
		"a link to a directory": {map[string]string{"sbin/init": "/etc"}, []string{"etc/x"}, ""},
		"a circle":              {map[string]string{"sbin/init": "/sbin/init"}, []string{"etc/x"}, ""},
	}
	for name, test := range tests {
		dir := testutil.TempDir(t)
		for _, f := range test.files {
			writeTree(t, dir, map[string]string{f: "x"})
			must(t, os.Chmod(filepath.Join(dir, f), 0o755))
		}
		for _, l := range slices.Sorted(maps.Keys(test.links)) {
			target := test.links[l]
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, l)), 0o755))
			must(t, os.Symlink(target, filepath.Join(dir, l)))
		}
		got, err := findInit(dir)
		if err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
		}
	}
}
