package criu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/internal/thread"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// startCanary starts the canary's tree for a test, and ends it with the test.
// The test must run inPrivateMounts when it restores.
func startCanary(t *testing.T) (*canary, *exec.Cmd) {
	t.Helper()
	c, err := newCanary(testutil.TempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := c.start(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return c, cmd
}

func TestTheCanaryLivesThroughACheckpoint(t *testing.T) {
	e := engine(t)
	dir := testutil.TempDir(t)
	start := time.Now()
	if err := e.Canary(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("canary took %s", time.Since(start).Round(time.Millisecond))
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestTheCanaryTellsWhenCRIUFails(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.UserNS)
	e, dir := fake(t, "refuse")
	err := e.Canary(t.Context(), dir)
	var ce *Error
	if !errors.As(err, &ce) || ce.Op != "dump" || ce.Log != "" {
		t.Errorf("error is %v, want a dump's without a log", err)
	}
	if matches, _ := filepath.Glob(filepath.Join(dir, "criu-canary-*")); len(matches) != 0 {
		t.Errorf("left over: %v", matches)
	}
}

func TestDumpAndRestoreNotifyInOrder(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	var dumped, restored []string
	st, err := e.Dump(t.Context(), DumpOptions{
		PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true,
		Notify: func(_ context.Context, ev Event) error { dumped = append(dumped, ev.Script); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if st.Frozen <= 0 || st.PagesWritten == 0 {
		t.Errorf("statistics are %+v", st)
	}
	if alive(cmd.Process.Pid) {
		t.Error("the tree lives on after the dump")
	}
	want := []string{EventPreDump, EventNetworkLock, EventQueryExtFiles, EventPostDump}
	if diff := cmp.Diff(want, dumped); diff != "" {
		t.Errorf("dump (-want +got):\n%s", diff)
	}
	checkLog(t, filepath.Join(c.images(), "dump.log"))

	var pids []int
	err = c.inMounts(func() error {
		pid, st, err := e.Restore(t.Context(), RestoreOptions{
			Images: c.images(), Root: c.root(), OwnNetNS: true, Sibling: true, CgroupRootsFromSelf: true,
			Notify: func(_ context.Context, ev Event) error {
				restored = append(restored, ev.Script)
				if ev.PID > 0 {
					pids = append(pids, ev.PID)
				}
				if ev.Script == EventSetupNamespaces {
					return loopbackUpIn(ev.PID)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		defer reap(pid)
		if diff := cmp.Diff([]int{pid, pid}, pids); diff != "" {
			t.Errorf("pids of notifications (-want +got):\n%s", diff)
		}
		if st.Restore <= 0 {
			t.Errorf("statistics are %+v", st)
		}
		return c.waitProgress(t.Context(), pid)
	})
	if err != nil {
		t.Fatal(err)
	}
	want = []string{
		EventPreRestore, EventSetupNamespaces, EventPostSetupNamespaces, EventPostRestore,
		EventNetworkUnlock, EventPreResume, EventPostResume,
	}
	if diff := cmp.Diff(want, restored); diff != "" {
		t.Errorf("restore (-want +got):\n%s", diff)
	}
	checkLog(t, filepath.Join(c.images(), "restore.log"))
}

func checkLog(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 || st.Size() == 0 {
		t.Errorf("%s has mode %o and %d bytes", path, st.Mode().Perm(), st.Size())
	}
}

func TestATreeLeftRunningGoesOn(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	if _, err := e.Dump(t.Context(), DumpOptions{
		PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true, LeaveRunning: true,
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

func TestAFailingHookAfterTheDumpLetsTheTasksGoOn(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	broken := errors.New("no room for the snapshot")
	_, err := e.Dump(t.Context(), DumpOptions{
		PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true,
		Notify: func(_ context.Context, ev Event) error {
			if ev.Script == EventPostDump {
				return broken
			}
			return nil
		},
	})
	if !errors.Is(err, broken) || errors.Is(err, ErrDone) {
		t.Fatalf("error is %v, want %v", err, broken)
	}
	if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

func TestADumpAtItsDeadlineLetsTheTasksGoOn(t *testing.T) {
	tests := map[string]struct {
		script   string
		obedient bool // returns at the deadline, so that CRIU cleans up
	}{
		"before anything":                  {EventPreDump, true},
		"when all is dumped":               {EventPostDump, true},
		"when all is dumped, hook hanging": {EventPostDump, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := engine(t)
			c, cmd := startCanary(t)
			thawed := false
			_, err := e.Dump(t.Context(), DumpOptions{
				PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true, Deadline: time.Second,
				Thaw: func() error { thawed = true; return nil },
				Notify: func(ctx context.Context, ev Event) error {
					if ev.Script == tt.script {
						<-ctx.Done()
						if !tt.obedient {
							time.Sleep(giveUpGrace + 500*time.Millisecond)
						}
					}
					return nil
				},
			})
			if !errors.Is(err, ErrDeadline) || errors.Is(err, ErrTraced) || !thawed {
				t.Fatalf("error is %v, thawed %v", err, thawed)
			}
			if !tt.obedient {
				unlock(t, cmd.Process.Pid)
			}
			if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
				t.Error(err)
			}
		})
	}
}

// unlock removes what a CRIU that was killed leaves in a network namespace.
func unlock(t *testing.T, pid int) {
	t.Helper()
	testutil.Require(t, testutil.Tool("nft"), testutil.Tool("nsenter"))
	cmd := exec.CommandContext(t.Context(), "nsenter", "-t", strconv.Itoa(pid), "-n", "nft", "flush", "ruleset")
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestARefusedDumpNamesTheProcessAndTheCure(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	err := thread.Spend(func() error {
		if err := attach(cmd.Process.Pid); err != nil {
			return err
		}
		_, err := e.Dump(t.Context(), DumpOptions{PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true})
		return err // the thread's end detaches
	})
	var ce *Error
	if !errors.As(err, &ce) {
		t.Fatalf("error is %v", err)
	}
	if ce.Object != "process that is being traced" || ce.PID != cmd.Process.Pid || ce.Log != filepath.Join(c.images(), "dump.log") {
		t.Errorf("error is %#v, want one of traced process %d", ce, cmd.Process.Pid)
	}
	if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

// attach traces a process from the calling thread and waits for it to stop.
func attach(pid int) error {
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	return unix.PtraceInterrupt(pid)
}

func TestARestoreWithAChangedFileSaysSoAndLeavesNoProcess(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	if _, err := e.Dump(t.Context(), DumpOptions{PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(c.root(), canaryCount), 1<<20); err != nil {
		t.Fatal(err)
	}
	var root int
	err := c.inMounts(func() error {
		_, _, err := e.Restore(t.Context(), RestoreOptions{
			Images: c.images(), Root: c.root(), OwnNetNS: true, Sibling: true,
			Notify: func(_ context.Context, ev Event) error {
				if ev.Script == EventSetupNamespaces {
					root = ev.PID
					return loopbackUpIn(ev.PID)
				}
				return nil
			},
		})
		return err
	})
	var ce *Error
	if !errors.As(err, &ce) || !strings.Contains(ce.Object, "changed size") || ce.Cure == "" || ce.Transient() {
		t.Fatalf("error is %v, want one of a changed file", err)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(root))); root == 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pid %d is there still: %v", root, err)
	}
}

func TestInspectTasksReadsTheCanarysCredentials(t *testing.T) {
	e := engine(t)
	c, cmd := startCanary(t)
	if _, err := e.Dump(t.Context(), DumpOptions{PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true}); err != nil {
		t.Fatal(err)
	}
	tasks, err := InspectTasks(c.images())
	if err != nil {
		t.Fatal(err)
	}
	pids := map[int]bool{}
	for _, task := range tasks {
		pids[task.PID] = true
		if task.UIDs != [4]uint32{} || task.Seccomp != SeccompDisabled || task.NoNewPrivs || task.Permitted&1 == 0 || task.Comm == "" {
			t.Errorf("thread %d: %+v", task.TID, task)
		}
	}
	if len(pids) != 2 || !pids[1] || len(tasks) < 4 {
		t.Errorf("processes %v of %d threads, want 2 processes of several threads", pids, len(tasks))
	}
	uids, gids, err := InspectUserNS(c.images())
	want := []IDMap{{ContainerID: 0, HostID: 0, Count: 1}}
	if err != nil || !cmp.Equal(uids, want) || !cmp.Equal(gids, want) {
		t.Errorf("maps are %v %v, %v", uids, gids, err)
	}
}
