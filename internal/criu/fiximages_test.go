package criu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fh"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fsnotify"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/regfile"
	remap "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	skopts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	skunix "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-unix"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

func TestWatchesOfLinksLiveThroughARollbackOnBtrfs(t *testing.T) {
	e := engine(t)
	testutil.Require(t, testutil.Btrfs)
	if !inOwnMounts(t) {
		return
	}
	dir := testutil.TempDir(t)
	d := openPool(t, testutil.TempDir(t))
	ctx := t.Context()
	mustNot(t, d.Create(ctx, "live", storage.CreateOptions{}))
	mustNot(t, os.Symlink(d.Path("live"), filepath.Join(dir, "root")))
	tr := startTree(t, dir, "watch", localtime)
	tr.dump(t, e)
	mustNot(t, d.Snapshot(ctx, "live", "snap", 0))

	// On the root that it was dumped from CRIU needs no help.
	mustNot(t, tr.restore(t, e))
	files := filepath.Join(tr.images(), filesName)
	unfixed, err := os.ReadFile(files)
	mustNot(t, err)

	// The files are looked for in the snapshot, as those of the tree go on changing.
	mustNot(t, os.Rename(filepath.Join(d.Path("live"), "etc/localtime"), filepath.Join(d.Path("live"), "etc/elsewhere")))
	fixes := tr.fix(t, FixOptions{Root: d.Path("live"), Snapshot: d.Path("snap")}, FixWatch)
	if len(fixes) != 1 || !strings.HasSuffix(fixes[0].Detail, " is on /etc/localtime") {
		t.Errorf("fixes are %v, want one for the watch of the link", fixes)
	}
	fixed, err := os.ReadFile(files)
	mustNot(t, err)

	mustNot(t, d.Create(ctx, "back", storage.CreateOptions{Origin: "snap"}))
	mustNot(t, d.Delete(ctx, "live"))
	mustNot(t, errors.Join(os.Remove(tr.root()), os.Symlink(d.Path("back"), tr.root())))
	mustNot(t, replaceImage(files, unfixed))
	tr.wantNeeded(t, e, FixWatch)
	mustNot(t, replaceImage(files, fixed))
	mustNot(t, tr.restore(t, e))
	if left, _ := filepath.Glob(filepath.Join(dir, "restore-*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	again, err := FixImages(ctx, tr.images(), FixOptions{Root: d.Path("snap")})
	if len(again) != 0 || err != nil {
		t.Errorf("a second time: %v, %v", again, err)
	}
}

func TestAProgramThatIsOpenWithoutAccessIsRestored(t *testing.T) {
	for _, name := range []string{"exe", "gone exe"} {
		t.Run(name, func(t *testing.T) {
			e := engine(t)
			tr := startTree(t, testutil.TempDir(t), name, nothing)
			tr.dump(t, e)
			tr.wantNeeded(t, e, FixExe)
			tr.fix(t, FixOptions{}, FixExe)
			mustNot(t, tr.restore(t, e))
		})
	}
}

func TestAClientThatComesBeforeItsListenerIsRestored(t *testing.T) {
	e := engine(t)
	tr := startTree(t, testutil.TempDir(t), "backlog", nothing)
	tr.dump(t, e)
	tr.wantNeeded(t, e, FixListener)
	tr.fix(t, FixOptions{}, FixListener)
	mustNot(t, tr.restore(t, e))
}

func mustNot(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noOwner is an empty fown_entry, all fields of which are required.
func noOwner() *fown.FownEntry {
	n := proto.Uint32(0)
	return &fown.FownEntry{Uid: n, Euid: n, Signum: n, PidType: n, Pid: n}
}

func regularOf(id, flags uint32, name string) *fdinfo.FileEntry {
	return &fdinfo.FileEntry{Type: fdinfo.FdTypes_REG.Enum(), Id: proto.Uint32(id), Reg: &regfile.RegFileEntry{
		Id: proto.Uint32(id), Flags: proto.Uint32(flags), Pos: proto.Uint64(7), Fown: noOwner(), Name: proto.String(name), MntId: proto.Int32(3),
	}}
}

func unixOf(id, inode, peer, state uint32) *fdinfo.FileEntry {
	n := proto.Uint32(0)
	return &fdinfo.FileEntry{Type: fdinfo.FdTypes_UNIXSK.Enum(), Id: proto.Uint32(id), Usk: &skunix.UnixSkEntry{
		Id: proto.Uint32(id), Ino: proto.Uint32(inode), Type: proto.Uint32(unix.SOCK_STREAM), State: proto.Uint32(state), Flags: n, Uflags: n,
		Backlog: n, Peer: proto.Uint32(peer), Fown: noOwner(), Name: []byte{},
		Opts: &skopts.SkOptsEntry{SoSndbuf: n, SoRcvbuf: n, SoSndTmoSec: proto.Uint64(0), SoSndTmoUsec: proto.Uint64(0), SoRcvTmoSec: proto.Uint64(0), SoRcvTmoUsec: proto.Uint64(0)},
	}}
}

func watchOf(id uint32, wd uint32, device uint32, h *fh.FhEntry) *fdinfo.FileEntry {
	n := proto.Uint32(0)
	return &fdinfo.FileEntry{Type: fdinfo.FdTypes_INOTIFY.Enum(), Id: proto.Uint32(id), Ify: &fsnotify.InotifyFileEntry{
		Id: proto.Uint32(id), Flags: n, Fown: noOwner(), Wd: []*fsnotify.InotifyWdEntry{
			{Id: n, IIno: proto.Uint64(5), Mask: n, IgnoredMask: n, SDev: proto.Uint32(device), Wd: proto.Uint32(wd), FHandle: h},
		},
	}}
}

func mmOf(exe uint32) *mm.MmEntry {
	n := proto.Uint64(0)
	return &mm.MmEntry{
		MmStartCode: n, MmEndCode: n, MmStartData: n, MmEndData: n, MmStartStack: n, MmStartBrk: n, MmBrk: n,
		MmArgStart: n, MmArgEnd: n, MmEnvStart: n, MmEnvEnd: n, ExeFileId: proto.Uint32(exe), MmSavedAuxv: []uint64{1},
	}
}

// ids returns the ids of the entries of files.img in their order.
func ids(t *testing.T, dir string) (all []uint32) {
	t.Helper()
	_, files, err := readFiles(dir)
	mustNot(t, err)
	for _, e := range files {
		all = append(all, e.GetId())
	}
	return all
}

func TestOnlyListenersMoveAndOnlyWhenAClientComesFirst(t *testing.T) {
	client, pair, server := unixOf(2, 20, 30, 1), unixOf(4, 40, 50, 1), unixOf(3, 30, 0, listening)
	for name, c := range map[string]struct {
		before []proto.Message
		want   []uint32
	}{
		"client first":   {[]proto.Message{regularOf(1, 0, "/a"), client, server, pair, unixOf(6, 60, 0, listening)}, []uint32{3, 6, 1, 2, 4}},
		"listener first": {[]proto.Message{pair, server, client, unixOf(6, 60, 0, listening)}, []uint32{4, 3, 2, 6}},
		"no client":      {[]proto.Message{unixOf(5, 50, 40, 1), pair, server}, []uint32{5, 4, 3}},
	} {
		dir := t.TempDir()
		writeImage(t, dir, filesName, magicFiles, c.before...)
		before, err := os.ReadFile(filepath.Join(dir, filesName))
		mustNot(t, err)
		mustNot(t, os.Chmod(filepath.Join(dir, filesName), 0o644))
		fixes, err := FixImages(t.Context(), dir, FixOptions{})
		mustNot(t, err)
		if diff := cmp.Diff(c.want, ids(t, dir)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		after, err := os.ReadFile(filepath.Join(dir, filesName))
		mustNot(t, err)
		if moved := !bytes.Equal(before, after); moved != (len(fixes) > 0) {
			t.Errorf("%s: changed %v, fixes %v", name, moved, fixes)
		}
		if st, err := os.Stat(filepath.Join(dir, filesName)); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode is %v, %v", name, st.Mode(), err)
		}
	}
}

func TestTasksWithTheSameProgramShareItsNewEntryAndWhereItsContentsAre(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir, filesName, magicFiles, regularOf(9, unix.O_PATH, "/x\x1b"), regularOf(4, unix.O_RDONLY, "/y"), regularOf(5, unix.O_PATH, "/z"))
	for name, exe := range map[string]uint32{"mm-1.img": 9, "mm-2.img": 4, "mm-3.img": 9} {
		writeImage(t, dir, name, magicMM, mmOf(exe))
	}
	ghost := func(id uint32) *remap.RemapFilePathEntry {
		return &remap.RemapFilePathEntry{OrigId: proto.Uint32(id), RemapId: proto.Uint32(77), RemapType: remap.RemapType_GHOST.Enum()}
	}
	writeImage(t, dir, "remap-fpath.img", magicRemap, ghost(4), ghost(9))
	fixes, err := FixImages(t.Context(), dir, FixOptions{})
	mustNot(t, err)
	want := []Fix{
		{FixExe, "mm-1.img", `/x\x1b has id 0xa, no longer that of an O_PATH descriptor`},
		{FixExe, "mm-3.img", `/x\x1b has id 0xa, no longer that of an O_PATH descriptor`},
	}
	if diff := cmp.Diff(want, fixes); diff != "" {
		t.Errorf("fixes (-want +got):\n%s", diff)
	}
	for name, want := range map[string]uint32{"mm-1.img": 10, "mm-2.img": 4, "mm-3.img": 10} {
		entries, err := readImage(filepath.Join(dir, name), magicMM)
		mustNot(t, err)
		var e mm.MmEntry
		mustNot(t, proto.Unmarshal(entries[0], &e))
		if wanted := mmOf(want); !proto.Equal(wanted, &e) {
			t.Errorf("%s is %v, want %v", name, &e, wanted)
		}
	}
	_, files, err := readFiles(dir)
	mustNot(t, err)
	added := regularOf(10, 0, "/x\x1b")
	added.Reg.Pos = proto.Uint64(0)
	if len(files) != 4 || !proto.Equal(files[3], added) || !proto.Equal(files[0], regularOf(9, unix.O_PATH, "/x\x1b")) {
		t.Errorf("files are %v, want the old ones and %v", files, added)
	}
	remaps, err := readImage(filepath.Join(dir, "remap-fpath.img"), magicRemap)
	mustNot(t, err)
	var last remap.RemapFilePathEntry
	mustNot(t, proto.Unmarshal(remaps[len(remaps)-1], &last))
	if len(remaps) != 3 || !proto.Equal(&last, ghost(10)) {
		t.Errorf("%d remaps, the last %v", len(remaps), &last)
	}
	if fixes, err := FixImages(t.Context(), dir, FixOptions{}); len(fixes) != 0 || err != nil {
		t.Errorf("a second time: %v, %v", fixes, err)
	}
}

func TestWithoutAFreeIDOrWithMalformedImagesNothingIsWritten(t *testing.T) {
	for name, fill := range map[string]func(dir string){
		"no files.img":        func(string) {},
		"another image":       func(dir string) { writeImage(t, dir, filesName, magicMM) },
		"no id left":          func(dir string) { writeImage(t, dir, filesName, magicFiles, regularOf(1<<32-1, unix.O_PATH, "/x")) },
		"mm of another magic": func(dir string) { writeImage(t, dir, "mm-2.img", magicFiles) },
		"empty mm":            func(dir string) { writeImage(t, dir, "mm-2.img", magicMM) },
	} {
		dir := t.TempDir()
		if name != "no files.img" {
			writeImage(t, dir, filesName, magicFiles, regularOf(1, unix.O_PATH, "/x"))
		}
		writeImage(t, dir, "mm-1.img", magicMM, mmOf(1<<32-1))
		fill(dir)
		before, _ := os.ReadFile(filepath.Join(dir, filesName))
		fixes, err := FixImages(t.Context(), dir, FixOptions{})
		if !errors.Is(err, ErrBadImage) && !errors.Is(err, os.ErrNotExist) || len(fixes) != 0 {
			t.Errorf("%s: %v, %v", name, fixes, err)
		}
		if after, _ := os.ReadFile(filepath.Join(dir, filesName)); !bytes.Equal(before, after) {
			t.Errorf("%s: files.img was changed", name)
		}
	}
}

func TestACuredCRIUTurnsItsFixOff(t *testing.T) {
	open, cured := imageFix{lastKnown: Version{4, 2, 1}}, imageFix{lastKnown: Version{4, 2, 1}, cured: Version{Major: 4, Minor: 4}}
	for _, c := range []struct {
		fix  imageFix
		v    Version
		want bool
	}{
		{open, Version{4, 2, 1}, true},
		{open, Version{Major: 9}, true}, // nobody has looked yet
		{cured, Version{4, 3, 5}, true},
		{cured, Version{Major: 4, Minor: 4}, false},
		{cured, Version{Major: 5}, false},
		{cured, Version{}, true},
	} {
		if got := c.fix.neededBy(c.v); got != c.want {
			t.Errorf("cured in %s: needed by %s is %v, want %v", c.fix.cured, c.v, got, c.want)
		}
	}
}

func FuzzFixImages(f *testing.F) {
	var seeds [][]byte
	for _, m := range []proto.Message{regularOf(9, unix.O_PATH, "/x"), unixOf(2, 20, 30, 1), watchOf(3, 1, 5, fileHandle{1, []byte("handle")}.image())} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	layout, err := proto.Marshal(mmOf(9))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeImage(magicFiles, seeds...), encodeImage(magicMM, layout), encodeImage(magicRemap))
	f.Fuzz(func(t *testing.T, files, layout, remaps []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{filesName: files, "mm-1.img": layout, "remap-fpath.img": remaps} {
			mustNot(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		if _, err := FixImages(t.Context(), dir, FixOptions{Root: dir}); err != nil {
			return
		}
		if _, err := FixImages(t.Context(), dir, FixOptions{Root: dir}); err != nil {
			t.Errorf("what was fixed can't be fixed again: %v", err)
		}
	})
}
