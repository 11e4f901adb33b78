package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// openFDs lists the open descriptors of this process.
func openFDs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var fds []string
	for _, entry := range entries {
		// The directory itself is gone by now.
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil {
			fds = append(fds, entry.Name()+" "+target)
		}
	}
	return fds
}

func TestADeadlineThawsFirstThenKills(t *testing.T) {
	e, dir := fake(t, "hang")
	var steps []string
	var notifyCtx context.Context
	_, err := e.Dump(t.Context(), DumpOptions{
		PID: os.Getpid(), Images: dir, Deadline: 300 * time.Millisecond,
		Thaw: func() error {
			if alive(fakePID(t, dir)) {
				steps = append(steps, "thaw while criu lives")
			}
			return nil
		},
		PIDs: func() ([]int, error) {
			step := "look at the tasks when criu is dead"
			if alive(fakePID(t, dir)) {
				step = "look at the tasks while criu stands still"
			}
			steps = append(steps, step)
			return []int{os.Getpid()}, nil
		},
		Notify: func(ctx context.Context, ev Event) error {
			notifyCtx = ctx
			steps = append(steps, ev.Script)
			return nil
		},
	})
	if !errors.Is(err, ErrDeadline) {
		t.Fatalf("error is %v, want ErrDeadline", err)
	}
	want := []string{
		"pre-dump", "thaw while criu lives",
		"look at the tasks while criu stands still", "look at the tasks when criu is dead",
	}
	if diff := cmp.Diff(want, slices.Compact(steps)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if notifyCtx.Err() == nil {
		t.Error("the notification's context outlives the dump")
	}
}

func TestADeadlineKillsCRIUEvenWhenThawFails(t *testing.T) {
	e, dir := fake(t, "hang")
	broken := errors.New("no such cgroup")
	_, err := e.Dump(t.Context(), DumpOptions{
		PID: os.Getpid(), Images: dir, Deadline: 200 * time.Millisecond,
		Thaw: func() error { return broken },
	})
	if !errors.Is(err, ErrDeadline) || !errors.Is(err, broken) {
		t.Errorf("error is %v, want ErrDeadline and %v", err, broken)
	}
	if alive(fakePID(t, dir)) {
		t.Error("criu lives on")
	}
}

func TestARestoreAtItsDeadlineKillsTheTasksFirst(t *testing.T) {
	e, dir := fake(t, "hang")
	killed := false
	pid, _, err := e.Restore(t.Context(), RestoreOptions{
		Images: dir, Deadline: 200 * time.Millisecond,
		Kill: func() error { killed = alive(fakePID(t, dir)); return nil },
	})
	if !errors.Is(err, ErrDeadline) || pid != 0 {
		t.Errorf("pid %d, error %v, want 0 and ErrDeadline", pid, err)
	}
	if !killed {
		t.Error("Kill was not called while CRIU lived")
	}
}

func TestACancelledContextDoesNotInterruptARunningDump(t *testing.T) {
	e, dir := fake(t, "files")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := e.Dump(ctx, DumpOptions{PID: os.Getpid(), Images: dir, Notify: func(ctx context.Context, ev Event) error {
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := ev.Files[0].WriteString("hello")
		return err
	}})
	if err != nil {
		t.Errorf("error is %v", err)
	}
	if _, err := e.Dump(ctx, DumpOptions{PID: os.Getpid(), Images: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("a dump begun with a cancelled context returns %v", err)
	}
}

func TestANotificationBringsDescriptorsThatAreClosedAfterwards(t *testing.T) {
	e, dir := fake(t, "files")
	before := openFDs(t)
	got := 0
	_, err := e.Dump(t.Context(), DumpOptions{PID: os.Getpid(), Images: dir, Notify: func(_ context.Context, ev Event) error {
		got = len(ev.Files)
		flags, err := unix.FcntlInt(ev.Files[0].Fd(), unix.F_GETFD, 0)
		if err != nil {
			return err
		}
		if flags&unix.FD_CLOEXEC == 0 {
			t.Error("the descriptor is not close-on-exec")
		}
		_, err = ev.Files[0].WriteString("hello")
		return err
	}})
	if err != nil {
		t.Fatal(err) // the fake checks that the pipe says hello and is closed
	}
	if got != 1 {
		t.Errorf("got %d files, want 1", got)
	}
	if diff := cmp.Diff(before, openFDs(t)); diff != "" {
		t.Errorf("open descriptors (-before +after):\n%s", diff)
	}
}

func TestAWorkerThatMisbehavesIsAnErrorAndLeavesNothing(t *testing.T) {
	tests := map[string]struct {
		is   error
		text string
	}{
		"gone":    {errWorkerGone, "the sky is falling"},
		"garbage": {nil, "decode criu's answer"},
		"endless": {nil, "longer than"},
		"refuse":  {unix.EBUSY, "criu refused"},
	}
	for mode, tt := range tests {
		t.Run(mode, func(t *testing.T) {
			if mode == "endless" {
				testutil.Require(t, testutil.Root) // to send so much at once
			}
			e, dir := fake(t, mode)
			before := openFDs(t)
			_, err := e.Dump(t.Context(), DumpOptions{PID: os.Getpid(), Images: dir})
			var ce *Error
			if !errors.As(err, &ce) || ce.Op != "dump" {
				t.Fatalf("error is %#v, want an *Error of a dump", err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error is %v, want %v", err, tt.is)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q does not say %q", err, tt.text)
			}
			if alive(fakePID(t, dir)) {
				t.Error("the worker lives on")
			}
			if diff := cmp.Diff(before, openFDs(t)); diff != "" {
				t.Errorf("open descriptors (-before +after):\n%s", diff)
			}
		})
	}
}

func TestANotifyErrorThatCRIUIgnoresIsReportedAndThePIDIsThere(t *testing.T) {
	e, dir := fake(t, "unheard")
	broken := errors.New("no veth")
	pid, _, err := e.Restore(t.Context(), RestoreOptions{Images: dir, Notify: func(context.Context, Event) error { return broken }})
	if !errors.Is(err, ErrDone) || !errors.Is(err, broken) {
		t.Errorf("error is %v, want ErrDone and %v", err, broken)
	}
	if pid != 4711 {
		t.Errorf("pid is %d", pid)
	}
}

func TestAWorkerThatLingersAfterItsAnswerIsEnded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the grace period")
	}
	e, dir := fake(t, "linger")
	if _, err := e.Dump(t.Context(), DumpOptions{PID: os.Getpid(), Images: dir}); err != nil {
		t.Error(err)
	}
	if alive(fakePID(t, dir)) {
		t.Error("it lives on")
	}
}

func TestAFailingPlaceSendsNoRequest(t *testing.T) {
	e, dir := fake(t, "refuse")
	broken := errors.New("cgroup is gone")
	_, _, err := e.Restore(t.Context(), RestoreOptions{Images: dir, Place: func(int) error { return broken }})
	if !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v", err, broken)
	}
	if _, err := os.Stat(filepath.Join(dir, "request")); err == nil {
		t.Error("a request was sent")
	}
}

func TestCRIUGetsNothingOfTheCallersEnvironmentAndConfiguration(t *testing.T) {
	t.Setenv("CRIU_CONFIG_FILE", "/tmp/evil.conf")
	t.Setenv("CRIU_LIBS_DIR", "/tmp/evil")
	t.Setenv("LD_PRELOAD", "")
	e, dir := fake(t, "refuse")
	_, err := e.Dump(t.Context(), DumpOptions{PID: os.Getpid(), Images: dir})
	if err == nil {
		t.Fatal("the fake refuses, but Dump succeeds")
	}
	b, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.SplitSeq(string(b), "\n") {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	// The shell that starts the fake adds PWD.
	want := []string{fakeDirEnv, fakeEnv, "HOME", "LC_ALL", "PATH", "PWD"}
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(args); got != "--no-default-config swrk 3" {
		t.Errorf("arguments are %q", got)
	}
}

func TestAMissingDirectoryIsAnErrorBeforeCRIUIsStarted(t *testing.T) {
	e, dir := fake(t, "refuse")
	for name, err := range map[string]error{
		"none":   second(e.Dump(t.Context(), DumpOptions{PID: 1})),
		"absent": second(e.Dump(t.Context(), DumpOptions{PID: 1, Images: filepath.Join(dir, "absent")})),
		"file":   second(e.Dump(t.Context(), DumpOptions{PID: 1, Images: e.Binary})),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
		t.Error("criu was started")
	}
}

func second(_ DumpStats, err error) error { return err }

func TestABinaryThatDoesNotStartIsAnErrorAndLeavesNothing(t *testing.T) {
	dir := testutil.TempDir(t)
	before := openFDs(t)
	_, err := Engine{Binary: filepath.Join(dir, "criu")}.Dump(t.Context(), DumpOptions{PID: 1, Images: dir})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want ErrNotExist", err)
	}
	if diff := cmp.Diff(before, openFDs(t)); diff != "" {
		t.Errorf("open descriptors (-before +after):\n%s", diff)
	}
}
