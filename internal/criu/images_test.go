package criu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/userns"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func writeImage(t *testing.T, dir, name string, magic uint32, messages ...proto.Message) {
	t.Helper()
	var entries [][]byte
	for _, m := range messages {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, b)
	}
	if err := os.WriteFile(filepath.Join(dir, name), encodeImage(magic, entries...), 0o600); err != nil {
		t.Fatal(err)
	}
}

func coreOf(c *creds.CredsEntry, mode criu_core.SeccompMode) *criu_core.CoreEntry {
	return &criu_core.CoreEntry{
		Mtype: criu_core.CoreEntry_X86_64.Enum(),
		ThreadCore: &criu_core.ThreadCoreEntry{
			FutexRla: proto.Uint64(0), FutexRlaLen: proto.Uint32(0),
			Creds: c, SeccompMode: mode.Enum(), Comm: proto.String("evil\x1b[m"),
		},
	}
}

func someCreds() *creds.CredsEntry {
	c := &creds.CredsEntry{
		Uid: proto.Uint32(1), Euid: proto.Uint32(2), Suid: proto.Uint32(3), Fsuid: proto.Uint32(4),
		Gid: proto.Uint32(5), Egid: proto.Uint32(6), Sgid: proto.Uint32(7), Fsgid: proto.Uint32(8),
		CapInh: []uint32{0, 0}, CapPrm: []uint32{1, 2}, CapEff: []uint32{3}, CapBnd: []uint32{0xffffffff, 0x1ff},
		Secbits: proto.Uint32(47), Groups: []uint32{9, 10},
	}
	// no_new_privs and cap_amb, which go-criu v7 does not know.
	b := protowire.AppendVarint(protowire.AppendTag(nil, 18, protowire.VarintType), 1)
	for _, word := range []uint64{16, 32} {
		b = protowire.AppendVarint(protowire.AppendTag(b, 19, protowire.VarintType), word)
	}
	c.ProtoReflect().SetUnknown(b)
	return c
}

func TestInspectTasksReadsEveryThread(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir, "pstree.img", magicPstree, &pstree.PstreeEntry{
		Pid: proto.Uint32(1), Ppid: proto.Uint32(0), Pgid: proto.Uint32(1), Sid: proto.Uint32(1), Threads: []uint32{1, 4},
	})
	writeImage(t, dir, "core-1.img", magicCore, coreOf(someCreds(), criu_core.SeccompMode_filter))
	writeImage(t, dir, "core-4.img", magicCore, coreOf(someCreds(), criu_core.SeccompMode_disabled))
	got, err := InspectTasks(dir)
	if err != nil {
		t.Fatal(err)
	}
	thread := TaskCreds{
		PID: 1, TID: 1, Comm: `evil\x1b[m`, UIDs: [4]uint32{1, 2, 3, 4}, GIDs: [4]uint32{5, 6, 7, 8}, Groups: []uint32{9, 10},
		Permitted: 2<<32 | 1, Effective: 3, Bounding: 0x1ffffffffff, Ambient: 32<<32 | 16, SecureBits: 47,
		Seccomp: SeccompFilter, NoNewPrivs: true,
	}
	other := thread
	other.TID, other.Seccomp = 4, SeccompDisabled
	if diff := cmp.Diff([]TaskCreds{thread, other}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestInspectTasksLeavesZombiesOut(t *testing.T) {
	dir := t.TempDir()
	writeImage(t, dir, "pstree.img", magicPstree, &pstree.PstreeEntry{
		Pid: proto.Uint32(7), Ppid: proto.Uint32(1), Pgid: proto.Uint32(1), Sid: proto.Uint32(1), Threads: []uint32{1724181280},
	})
	zombie := &criu_core.CoreEntry{Mtype: criu_core.CoreEntry_X86_64.Enum(), Tc: &criu_core.TaskCoreEntry{
		TaskState: proto.Uint32(taskDead), ExitCode: proto.Uint32(0), Personality: proto.Uint32(0), Flags: proto.Uint32(0),
		BlkSigset: proto.Uint64(0), Comm: proto.String("gone"),
	}}
	writeImage(t, dir, "core-7.img", magicCore, zombie)
	got, err := InspectTasks(dir)
	if len(got) != 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	zombie.Tc.TaskState = proto.Uint32(1)
	writeImage(t, dir, "core-7.img", magicCore, zombie)
	if _, err := InspectTasks(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a thread of a living task that has no image: %v", err)
	}
}

func TestInspectTasksRefusesWhatIsMissingOrMalformed(t *testing.T) {
	dir := t.TempDir()
	if _, err := InspectTasks(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no images: %v", err)
	}
	writeImage(t, dir, "pstree.img", magicPstree, &pstree.PstreeEntry{
		Pid: proto.Uint32(1), Ppid: proto.Uint32(0), Pgid: proto.Uint32(1), Sid: proto.Uint32(1),
	})
	if _, err := InspectTasks(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no core image: %v", err)
	}
	greedy := someCreds()
	greedy.CapEff = []uint32{1, 2, 3}
	bare := coreOf(nil, criu_core.SeccompMode_disabled)
	for name, core := range map[string]*criu_core.CoreEntry{"three words": coreOf(greedy, 0), "no credentials": bare} {
		writeImage(t, dir, "core-1.img", magicCore, core)
		if _, err := InspectTasks(dir); !errors.Is(err, ErrBadImage) {
			t.Errorf("%s: %v, want ErrBadImage", name, err)
		}
	}
	writeImage(t, dir, "core-1.img", magicPstree, coreOf(someCreds(), 0))
	if _, err := InspectTasks(dir); !errors.Is(err, ErrBadImage) {
		t.Errorf("another magic: %v, want ErrBadImage", err)
	}
}

func usernsOf(first uint32) *userns.UsernsEntry {
	x := []*userns.UidGidExtent{{First: proto.Uint32(0), LowerFirst: proto.Uint32(first), Count: proto.Uint32(65536)}}
	return &userns.UsernsEntry{UidMap: x, GidMap: x}
}

func TestRebaseMovesTheIDRangeOfAClone(t *testing.T) {
	dir := t.TempDir()
	if err := RebaseUserNS(dir, 1, 2, 3); err != nil {
		t.Errorf("without a user namespace: %v", err)
	}
	uids, gids, err := InspectUserNS(dir)
	if err != nil || uids != nil || gids != nil {
		t.Errorf("without a user namespace: %v %v %v", uids, gids, err)
	}
	e := usernsOf(1879048192)
	e.GidMap = usernsOf(1879048192).GidMap
	writeImage(t, dir, "userns-9.img", magicUserns, e)
	if err := os.Chmod(filepath.Join(dir, "userns-9.img"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := RebaseUserNS(dir, 1879048192, 1879113728, 65536); err != nil {
		t.Fatal(err)
	}
	want := []IDMap{{ContainerID: 0, HostID: 1879113728, Count: 65536}}
	uids, gids, err = InspectUserNS(dir)
	if err != nil || !cmp.Equal(uids, want) || !cmp.Equal(gids, want) {
		t.Errorf("maps are %v %v %v, want %v", uids, gids, err, want)
	}
	if st, err := os.Stat(filepath.Join(dir, "userns-9.img")); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode is %v, %v", st.Mode(), err)
	}
	if err := RebaseUserNS(dir, 1879048192, 5, 65536); err == nil {
		t.Error("a range that is not the container's was moved")
	}
	if err := RebaseUserNS(dir, 1879113728, 5, 65535); err == nil {
		t.Error("a range that is longer than the container's was moved")
	}
	writeImage(t, dir, "userns-10.img", magicUserns, e)
	if _, _, err := InspectUserNS(dir); !errors.Is(err, ErrBadImage) {
		t.Errorf("two user namespaces: %v, want ErrBadImage", err)
	}
}

func TestMakeReadableOpensImagesOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"core-1.img", "dump.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.img")); err != nil {
		t.Fatal(err)
	}
	if err := MakeReadable(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o711, "core-1.img": 0o644, "dump.log": 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", name, st.Mode().Perm(), want, err)
		}
	}
}

func FuzzDecodeImage(f *testing.F) {
	f.Add(encodeImage(magicCore, []byte("one"), nil, []byte("three")))
	f.Add([]byte{})
	f.Add([]byte("\x19\x43\x56\x54\x47\x38\x05\x55\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := decodeImage(bytes.NewReader(b), magicCore)
		if err != nil {
			if !errors.Is(err, ErrBadImage) {
				t.Errorf("error is %v, want ErrBadImage", err)
			}
			return
		}
		again, err := decodeImage(bytes.NewReader(encodeImage(magicCore, entries...)), magicCore)
		if err != nil || len(again) != len(entries) {
			t.Errorf("%d entries became %d, %v", len(entries), len(again), err)
		}
	})
}

func TestStatisticsThatAreCutOffAreAnError(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"empty": {}, "cut off": encodeImage(magicStats, []byte("abc"))[:10], "none": encodeImage(magicStats),
		"garbage": encodeImage(magicStats, []byte("\xff\xff")), "huge": append(encodeImage(magicStats), 0xff, 0xff, 0xff, 0x7f),
	} {
		if err := os.WriteFile(filepath.Join(dir, "stats-dump"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := ReadDumpStats(dir); !errors.Is(err, ErrBadImage) {
			t.Errorf("%s: %+v, %v, want ErrBadImage", name, st, err)
		}
	}
	if _, err := ReadRestoreStats(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}
