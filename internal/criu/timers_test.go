package criu

import (
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/timerfd"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
)

func timerOf(id uint32, ticks, value, interval uint64) *fdinfo.FileEntry {
	n := proto.Uint32(0)
	return &fdinfo.FileEntry{
		Type: fdinfo.FdTypes_TIMERFD.Enum(), Id: proto.Uint32(id),
		Tfd: &timerfd.TimerfdEntry{
			Id: proto.Uint32(id), Flags: n, Clockid: n, SettimeFlags: n, Ticks: proto.Uint64(ticks),
			Fown: &fown.FownEntry{Uid: n, Euid: n, Signum: n, PidType: n, Pid: n},
			Vsec: proto.Uint64(0), Vnsec: proto.Uint64(value), Isec: proto.Uint64(0), Insec: proto.Uint64(interval),
		},
	}
}

func TestRearmTimersTouchesOnlyPeriodicTimersThatHadExpired(t *testing.T) {
	dir := t.TempDir()
	before := []proto.Message{
		timerOf(1, 3, 0, 1000),   // expired, unread
		timerOf(2, 0, 0, 1000),   // disarmed
		timerOf(3, 1, 0, 0),      // fired, one shot
		timerOf(4, 0, 500, 1000), // under way
		&fdinfo.FileEntry{Type: fdinfo.FdTypes_PIPE.Enum(), Id: proto.Uint32(5)},
	}
	writeImage(t, dir, "files.img", magicFiles, before...)
	if err := RearmTimers(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := readImage(filepath.Join(dir, "files.img"), magicFiles)
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint32]uint64{}
	for i, b := range entries {
		var e fdinfo.FileEntry
		if err := proto.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		got[e.GetId()] = e.GetTfd().GetVnsec()
		if e.GetTfd() == nil && !proto.Equal(&e, before[i]) {
			t.Errorf("changed: %v", &e)
		}
	}
	want := map[uint32]uint64{1: 1, 2: 0, 3: 0, 4: 500, 5: 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nanoseconds to the next expiry (-want +got):\n%s", diff)
	}
}

func TestRearmTimersRefusesABrokenImage(t *testing.T) {
	dir := t.TempDir()
	if err := RearmTimers(dir); err == nil {
		t.Error("no error without files.img")
	}
	writeImage(t, dir, "files.img", magicCore)
	if err := RearmTimers(dir); err == nil {
		t.Error("no error with another image's magic")
	}
}
