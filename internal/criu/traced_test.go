package criu

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

func TestATracedTaskIsFoundUntilItsTracerLetsGo(t *testing.T) {
	testutil.Require(t, testutil.Tool("sleep"))
	cmd := exec.CommandContext(t.Context(), "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pids := func() ([]int, error) { return []int{cmd.Process.Pid}, nil }
	if err := waitUntraced(pids, time.Second); err != nil {
		t.Errorf("before: %v", err)
	}
	err := thread.Spend(func() error {
		if err := unix.PtraceSeize(cmd.Process.Pid); err != nil {
			t.Error(err)
		}
		return waitUntraced(pids, 50*time.Millisecond)
	})
	if !errors.Is(err, ErrTraced) {
		t.Errorf("while traced: %v, want ErrTraced", err)
	}
	if err := waitUntraced(pids, time.Second); err != nil {
		t.Errorf("after: %v", err)
	}
}

func TestDescendantsHoldsTheProcessAndItsChildren(t *testing.T) {
	testutil.Require(t, testutil.Tool("sleep"))
	cmd := exec.CommandContext(t.Context(), "sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pids, err := descendants(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(pids, os.Getpid()) || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("%v lacks %d or %d", pids, os.Getpid(), cmd.Process.Pid)
	}
}

func TestAProcessThatIsGoneHasNoTracer(t *testing.T) {
	const noSuchPID = 1 << 22 // above the largest pid_max
	err := waitUntraced(func() ([]int, error) { return descendants(noSuchPID) }, time.Second)
	if err != nil {
		t.Error(err)
	}
}

func TestTracerReadsTheStatusFile(t *testing.T) {
	tests := map[string]int{
		"Name:\ta\nPid:\t1\nTracerPid:\t42\nUid:\t0\n": 42,
		"Name:\ta\nTracerPid:\t0\n":                    0,
		"TracerPid:\t7\nis a process's name":           0,
		"":                                             0,
		"Name:\tx\nTracerPid:\tmany\n":                 0,
	}
	for status, want := range tests {
		if got := tracer([]byte(status)); got != want {
			t.Errorf("tracer(%q) = %d, want %d", status, got, want)
		}
	}
}
