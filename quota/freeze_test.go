package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// busyTree writes its progress into a file, spawns without a pause, and has a
// child that is stopped by a signal.
const busyTree = `
	cd "$1" || exit
	sleep 1000 & kill -STOP $!; echo $! >stopped
	(while :; do /bin/true; done) &
	(while :; do /bin/true; done) &
	(while :; do sh -c 'sh -c :'; done) &
	i=0
	while :; do i=$((i+1)); echo $i >count; done`

// busy starts busyTree, one half of it in a sub-cgroup where there is cgroup2,
// and waits until it works.
func busy(t testing.TB, g Group) (dir string) {
	t.Helper()
	dir = t.TempDir()
	sub := ""
	if g.Unified() != "" {
		sub = "work"
		if err := os.Mkdir(filepath.Join(g.Unified(), sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, g, sub, nil, "/bin/sh", "-c", busyTree, "busy", dir)
	run(t, g, "", nil, "/bin/sh", "-c", "while :; do /bin/true; done")
	eventually(t, "the busy tree counts", func() bool {
		return exists(dir+"/stopped") && exists(dir+"/count") && taskState(t, dir) == 'T'
	})
	return dir
}

func taskState(t testing.TB, dir string) byte {
	t.Helper()
	pid, err := readInt(dir + "/stopped")
	if err != nil {
		return 0 // not written yet
	}
	task, err := readTask(int(pid))
	if err != nil {
		t.Fatal(err)
	}
	return task.State
}

// progress is everything that moves while the tree runs: the count and which
// processes there are.
func progress(t testing.TB, g Group, dir string) string {
	t.Helper()
	count, err := readText(dir + "/count")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := g.PIDs()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(count, pids)
}

func cpuTime(t testing.TB, g Group) time.Duration {
	t.Helper()
	u, err := g.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u.CPU.Time
}

func TestAFrozenTreeMakesNoProgressAndGoesOnWhenThawed(t *testing.T) {
	for name, hosts := range map[string]func(testing.TB) mounts{"cgroup2 or what is first": hostMounts, "v1 freezer": v1Only} {
		t.Run(name, func(t *testing.T) {
			g := realGroup(t, hosts(t))
			dir := busy(t, g)
			for range 10 {
				if err := g.Freeze(deadline(t, 5*time.Second)); err != nil {
					t.Fatal(err)
				}
				if frozen, err := g.Frozen(); err != nil || !frozen {
					t.Fatalf("Frozen after Freeze: %v, %v", frozen, err)
				}
				before, cpu := progress(t, g, dir), cpuTime(t, g)
				time.Sleep(30 * time.Millisecond)
				// A task counts as frozen some microseconds before it leaves its CPU.
				if d := cpuTime(t, g) - cpu; d > time.Millisecond {
					t.Fatalf("%v of cpu time used while frozen", d)
				}
				if after := progress(t, g, dir); after != before {
					t.Fatalf("progress while frozen:\n%s\n%s", before, after)
				}
				if err := g.Thaw(); err != nil {
					t.Fatal(err)
				}
				if frozen, err := g.Frozen(); err != nil || frozen {
					t.Fatalf("Frozen after Thaw: %v, %v", frozen, err)
				}
				eventually(t, "the tree goes on", func() bool { return progress(t, g, dir) != before })
				if s := taskState(t, dir); s != 'T' {
					t.Errorf("the stopped process is in state %c after the thaw, want T", s)
				}
			}
		})
	}
}

func TestFreezeLeavesNoTaskInVfork(t *testing.T) {
	g := realGroup(t, hostMounts(t))
	if g.Unified() == "" {
		t.Skip("state D tells nothing with the v1 freezer")
	}
	busy(t, g)
	for range 50 {
		if err := g.Freeze(deadline(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		tids, err := idsBelow(g.Unified(), "cgroup.threads")
		if err != nil {
			t.Fatal(err)
		}
		for _, tid := range tids {
			if task, err := readTask(tid); err == nil && task.State == 'D' {
				t.Fatalf("frozen with %v", task)
			}
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestFreezeWaitsForAVforkToEnd(t *testing.T) {
	for name, hosts := range map[string]func(testing.TB) mounts{"cgroup2 or what is first": hostMounts, "v1 freezer": v1Only} {
		t.Run(name, func(t *testing.T) {
			g := realGroup(t, hosts(t))
			begin := time.Now() // before the vfork, so that a slow machine can't make it look short
			cmd, out := play(t, g, nil, partVfork, "300ms")
			expect(t, out, "ready")
			eventually(t, "vfork", func() bool { return vforkParent(t, cmd.Process.Pid) })
			if err := g.Freeze(deadline(t, 30*time.Second)); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(begin); d < 300*time.Millisecond {
				t.Errorf("frozen after %v, in the middle of the vfork", d)
			}
		})
	}
}

// vforkParent tells whether a thread of the process waits for its vfork child.
func vforkParent(t testing.TB, pid int) bool {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		tid, err := strconv.Atoi(e.Name())
		return err == nil && inFork(tid)
	})
}

func TestFreezeGivesUpAtTheDeadlineThawsAndNamesTheTasks(t *testing.T) {
	mountNS := func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} }
	for _, tc := range []struct {
		name, part string
		mod        func(*exec.Cmd)
		cause      string
		hosts      func(testing.TB) mounts
	}{
		{"vfork that does not end", partVfork, nil, "vfork", hostMounts},
		{"vfork that does not end, v1 freezer", partVfork, nil, "vfork", v1Only},
		{"uninterruptible sleep", partHang, mountNS, "would not stop", hostMounts},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := realGroup(t, tc.hosts(t))
			arg := "1h"
			if tc.part == partHang {
				if !exists("/dev/fuse") {
					t.Skip("needs /dev/fuse")
				}
				arg = t.TempDir()
			}
			dir := ""
			if g.Unified() != "" { // the v1 freezer may stay in FREEZING because of these
				dir = busy(t, g)
			}
			cmd, out := play(t, g, tc.mod, tc.part, arg)
			expect(t, out, "ready")
			time.Sleep(50 * time.Millisecond)
			var err error
			var fe *FreezeError
			for try, named := 0, false; !named; try++ {
				err = g.Freeze(deadline(t, 400*time.Millisecond))
				if !errors.As(err, &fe) || !errors.Is(err, ErrNotFrozen) || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v, want a FreezeError for the deadline", err)
				}
				// At the very end one of the busy others may be in the way too.
				named = slices.ContainsFunc(fe.Tasks, func(k Task) bool { return sameProcess(k.PID, cmd.Process.Pid) })
				if !named && try == 9 {
					t.Fatalf("%v does not name process %d", fe.Tasks, cmd.Process.Pid)
				}
			}
			t.Log(err)
			self := filepath.Base(os.Args[0])
			if !strings.Contains(fe.Cause, tc.cause) || !strings.Contains(err.Error(), self[:min(len(self), 15)]) {
				t.Errorf("%v: want the cause %q and the command", err, tc.cause)
			}
			if frozen, err := g.Frozen(); err != nil || frozen {
				t.Errorf("Frozen: %v, %v, want false", frozen, err)
			}
			if dir == "" {
				return
			}
			before := progress(t, g, dir)
			eventually(t, "the others go on", func() bool { return progress(t, g, dir) != before })
		})
	}
}

func sameProcess(tid, pid int) bool {
	return exists(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(tid)))
}

func TestFreezeOfAGroupThatIsNotThereSaysSo(t *testing.T) {
	needRoot(t)
	g, err := Open(groupName(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Freeze(deadline(t, time.Second)); !errors.Is(err, ErrNotFound) {
		t.Errorf("Freeze: %v, want ErrNotFound", err)
	}
	if err := g.Thaw(); err != nil {
		t.Errorf("Thaw: %v, want nil", err)
	}
	if frozen, err := g.Frozen(); err != nil || frozen {
		t.Errorf("Frozen: %v, %v, want false", frozen, err)
	}
	if err := g.KillAll(deadline(t, time.Second)); err != nil {
		t.Errorf("KillAll: %v, want nil", err)
	}
	if err := g.Remove(deadline(t, time.Second)); err != nil {
		t.Errorf("Remove: %v, want nil", err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) != 0 {
		t.Errorf("PIDs: %v, %v, want none", pids, err)
	}
}

func TestFreezeWithAnEndedContextFreezesNothing(t *testing.T) {
	g := realGroup(t, hostMounts(t))
	run(t, g, "", nil, "sleep", "1000")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Freeze(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if frozen, _ := g.Frozen(); frozen {
		t.Error("the group is frozen")
	}
}

func TestKillAllEndsAFrozenTreeWithAStoppedTask(t *testing.T) {
	for name, hosts := range map[string]func(testing.TB) mounts{"cgroup2 or what is first": hostMounts, "v1 freezer": v1Only} {
		t.Run(name, func(t *testing.T) {
			g := realGroup(t, hosts(t))
			dir := busy(t, g)
			if err := g.Freeze(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			before, err := readText(dir + "/count")
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := g.KillAll(deadline(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			t.Log("killed in", time.Since(begin))
			if pids, err := g.allPIDs(); err != nil || len(pids) != 0 {
				t.Errorf("left: %v, %v", pids, err)
			}
			if after, _ := readText(dir + "/count"); after != before {
				t.Errorf("the tree ran between thaw and death: %s, then %s", before, after)
			}
		})
	}
}

func TestRemoveOfAGroupWithProcessesNamesThem(t *testing.T) {
	g := realGroup(t, hostMounts(t))
	run(t, g, "", nil, "sleep", "1000")
	err := g.Remove(deadline(t, 50*time.Millisecond))
	if !errors.Is(err, ErrPopulated) || !strings.Contains(err.Error(), "sleep") && !strings.Contains(err.Error(), "(sh,") {
		t.Errorf("got %v, want ErrPopulated and the command", err)
	}
	if pids, err := g.PIDs(); err != nil || len(pids) != 1 {
		t.Errorf("PIDs: %v, %v, want one", pids, err)
	}
}

// TestFreezeTime prints how long Freeze takes: on a tree like that of an
// ordinary container, and on one that spawns without a pause, where most tries
// meet a vfork.
func TestFreezeTime(t *testing.T) {
	ordinary := func(t testing.TB, g Group) {
		run(t, g, "", nil, "/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; while :; do :; done")
		run(t, g, "", nil, "/bin/sh", "-c", "while :; do sleep 0.02; done")
		time.Sleep(100 * time.Millisecond)
	}
	spawning := func(t testing.TB, g Group) { busy(t, g) }
	for _, tc := range []struct {
		name  string
		hosts func(testing.TB) mounts
		fill  func(testing.TB, Group)
	}{
		{"ordinary tree, cgroup2 or what is first", hostMounts, ordinary},
		{"ordinary tree, v1 freezer", v1Only, ordinary},
		{"spawning tree, cgroup2 or what is first", hostMounts, spawning},
		{"spawning tree, v1 freezer", v1Only, spawning},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := realGroup(t, tc.hosts(t))
			tc.fill(t, g)
			var times []time.Duration
			for range 100 {
				begin := time.Now()
				if err := g.Freeze(deadline(t, 10*time.Second)); err != nil {
					t.Fatal(err)
				}
				times = append(times, time.Since(begin))
				if err := g.Thaw(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Millisecond)
			}
			slices.Sort(times)
			t.Logf("freeze: median %v, p90 %v, worst %v", times[50], times[90], times[99])
			if times[50] > 500*time.Millisecond {
				t.Errorf("median %v is far too long", times[50])
			}
		})
	}
}
