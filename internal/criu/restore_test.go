package criu

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCgroupPathsAreReadPerController(t *testing.T) {
	got := parseCgroups("12:cpu,cpuacct:/a\n3:name=systemd:/b:c\n0::/d\nnonsense\n")
	want := map[string]string{"cpu": "/a", "cpuacct": "/a", "name=systemd": "/b:c", "": "/d"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGivenCgroupRootsWinOverTheWorkers(t *testing.T) {
	var r rpc.CriuOpts
	placed := 0
	o := RestoreOptions{
		CgroupRootsFromSelf: true, CgroupRoots: map[string]string{"": "/mine", "extra": "/x"},
		Place: func(pid int) error { placed = pid; return nil },
	}
	if err := o.place(os.Getpid(), &r); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, root := range r.GetCgRoot() {
		got[root.GetCtrl()] = root.GetPath()
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	want := parseCgroups(string(b))
	want[""], want["extra"] = "/mine", "/x"
	if diff := cmp.Diff(want, got); diff != "" || placed != os.Getpid() {
		t.Errorf("placed %d, roots (-want +got):\n%s", placed, diff)
	}
}

func TestReapEndsAChildAndLeavesStrangersAlone(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := reap(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(cmd.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the child is there still: %v", err)
	}
	_ = cmd.Wait() // has been waited for already
	for _, pid := range []int{0, -1, os.Getppid()} {
		if err := reap(pid); err != nil {
			t.Errorf("reap(%d): %v", pid, err)
		}
	}
	if err := unix.Kill(os.Getppid(), 0); err != nil {
		t.Errorf("the parent: %v", err)
	}
}

func TestTheRequestsSayWhatTheOptionsMean(t *testing.T) {
	d := DumpOptions{PID: 7, Root: "/r", OwnNetNS: true, FreezeCgroup: "/cg", ParentImages: "../1", External: []string{"a"}}.request()
	if d.GetPid() != 7 || d.GetRoot() != "/r" || d.GetEmptyNs() != unix.CLONE_NEWNET || d.GetFreezeCgroup() != "/cg" ||
		d.GetParentImg() != "../1" || !d.GetTrackMem() || d.GetLeaveRunning() || d.GetGhostLimit() != 256<<20 ||
		!d.GetTcpEstablished() || d.GetTcpClose() || !d.GetLinkRemap() || !d.GetFileLocks() || !d.GetExtUnixSk() ||
		!d.GetOrphanPtsMaster() || d.GetNetworkLock() != rpc.CriuNetworkLockMethod_NFTABLES ||
		d.GetManageCgroupsMode() != rpc.CriuCgMode_SOFT || d.GetExternal()[0] != "a" {
		t.Errorf("dump: %v", d)
	}
	if got := (DumpOptions{}).request(); got.EmptyNs != nil || got.Root != nil || got.FreezeCgroup != nil || got.TrackMem != nil {
		t.Errorf("zero dump: %v", got)
	}
	r := RestoreOptions{Root: "/r", TCPClose: true, Sibling: true, LazyPages: true}.request()
	if r.GetRoot() != "/r" || r.GetTcpEstablished() || !r.GetTcpClose() || !r.GetRstSibling() || !r.GetLazyPages() || !r.GetEvasiveDevices() || r.EmptyNs != nil {
		t.Errorf("restore: %v", r)
	}
}
