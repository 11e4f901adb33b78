package criu

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fh"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
)

// openTestTree opens a directory and closes it with the test.
func openTestTree(t *testing.T, dir string) *fileTree {
	t.Helper()
	tree, err := openTree(dir)
	mustNot(t, err)
	t.Cleanup(func() { mustNot(t, tree.close()) })
	return tree
}

// fixWatches dumps watches on files, by their handles, and fixes them with o.
func fixWatches(t *testing.T, o FixOptions, device uint32, handles ...*fh.FhEntry) (paths []string, fixes []Fix) {
	t.Helper()
	dir := t.TempDir()
	var entries []proto.Message
	for i, h := range handles {
		entries = append(entries, watchOf(uint32(i), 1, device, h))
	}
	writeImage(t, dir, filesName, magicFiles, entries...)
	fixes, err := FixImages(t.Context(), dir, o)
	mustNot(t, err)
	_, files, err := readFiles(dir)
	mustNot(t, err)
	for _, e := range files {
		paths = append(paths, e.GetIfy().GetWd()[0].GetFHandle().GetPath())
	}
	return paths, fixes
}

func TestFilesAreFoundByHandleBelowTheRootOnly(t *testing.T) {
	testutil.Require(t, testutil.Root)
	top := testutil.TempDir(t)
	root := filepath.Join(top, "root")
	mustNot(t, errors.Join(os.MkdirAll(filepath.Join(root, "etc"), 0o755), localtimeIn(filepath.Join(root, "etc")), localtimeIn(top)))
	mustNot(t, os.Symlink("../..", filepath.Join(root, "out")))
	tree := openTestTree(t, root)
	outside := openTestTree(t, top)
	link, err := tree.handle("etc/localtime")
	mustNot(t, err)
	foreign, err := outside.handle("localtime")
	mustNot(t, err)
	for _, path := range []string{"../localtime", "out/localtime", "/etc/../../localtime", "etc/localtime/", "out/"} {
		if h, err := tree.handle(path); err == nil && h.equal(foreign) {
			t.Errorf("%s led out of the root", path)
		}
	}
	named := link.image()
	named.Path, named.MntId = proto.String("/by/criu"), proto.Uint32(7)
	stale := fileHandle{link.kind, append([]byte{}, link.data...)}
	binary.LittleEndian.PutUint32(stale.data[4:], 0xdeadbeef)
	paths, fixes := fixWatches(t, FixOptions{Root: root}, tree.device, link.image(), foreign.image(), named, stale.image())
	if diff := cmp.Diff([]string{"/etc/localtime", "", "/by/criu", ""}, paths); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	var kinds []FixKind
	for _, f := range fixes {
		kinds = append(kinds, f.Kind)
	}
	// What is outside has no name inside.
	if diff := cmp.Diff([]FixKind{FixWatch, FixWatchUnresolved, FixWatchUnresolved}, kinds); diff != "" {
		t.Errorf("fixes (-want +got):\n%s", diff)
	}
	if paths, fixes := fixWatches(t, FixOptions{Root: root}, tree.device+1, link.image()); paths[0] != "" || len(fixes) != 0 {
		t.Errorf("a watch on another device: %v, %v", paths, fixes)
	}
	if paths, fixes := fixWatches(t, FixOptions{}, tree.device, link.image()); paths[0] != "" || len(fixes) != 0 {
		t.Errorf("without a root: %v, %v", paths, fixes)
	}
}

func TestALinkThatTheKernelKnowsByAnotherNameIsLookedFor(t *testing.T) {
	testutil.Require(t, testutil.Root)
	top := testutil.TempDir(t)
	root := filepath.Join(top, "root")
	mustNot(t, errors.Join(os.Mkdir(root, 0o755), localtime(root)))
	// The name that was made last is the first that the kernel thinks of.
	mustNot(t, os.Link(filepath.Join(root, "etc/localtime"), filepath.Join(top, "last")))
	tree := openTestTree(t, root)
	h, err := tree.handle("etc/localtime")
	mustNot(t, err)
	paths, fixes := fixWatches(t, FixOptions{Root: root}, tree.device, h.image(), h.image())
	if diff := cmp.Diff([]string{"/etc/localtime", "/etc/localtime"}, paths); diff != "" {
		t.Errorf("paths (-want +got), fixes %v:\n%s", fixes, diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if links, err := openTestTree(t, root).linksWith(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %v", links, err)
	}
}

// localtimeIn makes a link in a directory.
func localtimeIn(dir string) error { return os.Symlink("zone", filepath.Join(dir, "localtime")) }

func TestDeletedFilesAreLeftToCRIU(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	f, err := os.Create(filepath.Join(root, "gone"))
	mustNot(t, err)
	defer f.Close()
	tree := openTestTree(t, root)
	h, err := tree.handle("gone")
	mustNot(t, err)
	mustNot(t, os.Remove(f.Name()))
	if paths, fixes := fixWatches(t, FixOptions{Root: root}, tree.device, h.image()); paths[0] != "" || len(fixes) != 0 {
		t.Errorf("path %v, fixes %v", paths, fixes)
	}
}

func TestBtrfsKnowsTheNamesThatTheKernelHasForgotten(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	if !inOwnMounts(t) {
		return
	}
	pool := testutil.TempDir(t)
	d := openPool(t, pool)
	mustNot(t, d.Create(t.Context(), "a", storage.CreateOptions{}))
	mustNot(t, localtime(d.Path("a")))
	mustNot(t, os.Link(filepath.Join(d.Path("a"), "etc/localtime"), filepath.Join(d.Path("a"), "second")))
	tree, err := openTree(d.Path("a"))
	mustNot(t, err)
	h, err := tree.handle("etc/localtime")
	mustNot(t, errors.Join(err, tree.close(), d.Detach(t.Context())))
	reopened := openPool(t, pool)
	mustNot(t, reopened.Snapshot(t.Context(), "a", "s", 0))
	for _, o := range []FixOptions{{Root: reopened.Path("a")}, {Root: reopened.Path("a"), Snapshot: reopened.Path("s")}} {
		paths, fixes := fixWatches(t, o, 0, h.image())
		if (paths[0] != "/etc/localtime" && paths[0] != "/second") || len(fixes) != 1 {
			t.Errorf("path %v, fixes %v", paths, fixes)
		}
	}
	if paths, fixes := fixWatches(t, FixOptions{Root: reopened.Path("s")}, 0, h.image()); paths[0] != "" || len(fixes) != 0 {
		t.Errorf("of another subvolume: path %v, fixes %v", paths, fixes)
	}
}

func TestHandlesOfImagesAreBounded(t *testing.T) {
	good := fileHandle{btrfsHandleType, []byte("12345678abcdefghIJKL")}
	back, err := imageHandle(good.image())
	if err != nil || !back.equal(good) || len(good.image().GetHandle()) != handleWords {
		t.Errorf("%v became %v, %v", good, back, err)
	}
	if moved := good.in(7); moved.subvolume() != 7 || moved.inode() != good.inode() || good.subvolume() == 7 {
		t.Errorf("moved from %v to %v", good, moved)
	}
	for _, e := range []*fh.FhEntry{
		{},
		{Bytes: proto.Uint32(9), Handle: []uint64{1}},
		{Bytes: proto.Uint32(1<<32 - 1), Handle: make([]uint64, 100)},
		{Bytes: proto.Uint32(129), Handle: make([]uint64, 100)},
	} {
		if h, err := imageHandle(e); !errors.Is(err, ErrBadImage) {
			t.Errorf("%v: %v, %v", e, h, err)
		}
	}
}

func TestPathsOfFixedWatchesBecomeHandlesOfTheNewRoot(t *testing.T) {
	testutil.Require(t, testutil.Root)
	dir := testutil.TempDir(t)
	root, images := filepath.Join(dir, "root"), filepath.Join(dir, "images")
	mustNot(t, errors.Join(os.Mkdir(root, 0o755), os.Mkdir(images, 0o711), localtime(root)))
	tree := openTestTree(t, root)
	named := func(path string, mount *uint32) *fh.FhEntry {
		e := fileHandle{1, []byte("old")}.image()
		e.Path, e.MntId = proto.String(path), mount
		return e
	}
	const device = 0x800123
	before := []proto.Message{
		watchOf(1, 1, device, named("/etc/localtime", nil)), // as FixImages does it
		watchOf(2, 1, device, named("/etc/localtime", proto.Uint32(3))),
		watchOf(3, 1, device+1, named("/etc/localtime", nil)), // on nothing that is mounted
		watchOf(4, 1, device, named("/etc/none", nil)),
	}
	writeImage(t, images, filesName, magicFiles, before...)
	n := proto.Uint32(0)
	s := proto.String("")
	writeImage(t, images, "mountpoints-9.img", magicMounts, &mnt.MntEntry{
		Fstype: n, MntId: n, RootDev: proto.Uint32(device), ParentMntId: n, Flags: n, Root: s, Mountpoint: s, Source: s, Options: s,
	})
	mustNot(t, errors.Join(os.WriteFile(filepath.Join(images, "dump.log"), nil, 0o600), os.Symlink("../older", filepath.Join(images, "parent"))))
	own, done, err := RestoreOptions{Images: images, Root: root}.rootedImages()
	mustNot(t, err)
	var got []string
	all, err := os.ReadDir(own)
	mustNot(t, err)
	for _, e := range all {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff([]string{filesName, "mountpoints-9.img", "parent"}, got); own == images || diff != "" {
		t.Errorf("files in %s (-want +got):\n%s", own, diff)
	}
	for name, want := range map[string]os.FileMode{".": 0o711, filesName: 0o644} {
		if st, err := os.Stat(filepath.Join(own, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v", name, st.Mode(), err)
		}
	}
	_, files, err := readFiles(own)
	mustNot(t, err)
	link, err := tree.handle("etc/localtime")
	mustNot(t, err)
	before[0] = watchOf(1, 1, device, link.image())
	for i, e := range files {
		if !proto.Equal(e, before[i]) {
			t.Errorf("watch %d is %v, want %v", i, e, before[i])
		}
	}
	mustNot(t, done())
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
	writeImage(t, images, filesName, magicFiles, watchOf(1, 1, device, named("/etc/localtime", nil)))
	if own, _, err := (RestoreOptions{Images: images, Root: "/proc"}).rootedImages(); own != images || err != nil {
		t.Errorf("on a file system without handles: %s, %v", own, err)
	}
	if _, fixes := fixWatches(t, FixOptions{Root: "/proc"}, tree.device, link.image()); len(fixes) != 0 {
		t.Errorf("on a file system without handles: %v", fixes)
	}
	writeImage(t, images, filesName, magicFiles, before[1:]...)
	if own, done, err := (RestoreOptions{Images: images, Root: root}).rootedImages(); own != images || err != nil || done() != nil {
		t.Errorf("without anything to change: %s, %v", own, err)
	}
}

func FuzzParseInoPaths(f *testing.F) {
	b := make([]byte, 64)
	binary.NativeEndian.PutUint32(b[8:], 2)
	binary.NativeEndian.PutUint64(b[16:], 16)
	binary.NativeEndian.PutUint64(b[24:], 1<<63)
	copy(b[32:], "etc/localtime")
	if got := parseInoPaths(b); !cmp.Equal(got, []string{"etc/localtime"}) {
		f.Errorf("got %q", got)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range parseInoPaths(b) {
			if name == "" {
				t.Error("an empty name")
			}
		}
	})
}
