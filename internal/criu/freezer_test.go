package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// freezer makes a cgroup of the v1 freezer for a test.
func freezer(t *testing.T) string {
	t.Helper()
	const root = "/sys/fs/cgroup/freezer"
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		t.Skip("no v1 freezer on this host")
	}
	dir, err := os.MkdirTemp(root, "ctctl-test-criu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := retry(5*time.Second, func() error { return os.Remove(dir) }); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// retry calls f until it succeeds or the time is over.
func retry(limit time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// With the v1 freezer and a task that job control has stopped, CRIU hangs in
// ptrace and cannot be killed until the cgroup is thawed.
func TestCRIUStuckOnAFrozenAndStoppedTaskIsFreed(t *testing.T) {
	e := engine(t)
	cg := freezer(t)
	state := filepath.Join(cg, "freezer.state")
	set := func(s string) error { return os.WriteFile(state, []byte(s), 0o600) }
	c, cmd := startCanary(t)
	// Frozen processes do not die, so this comes before startCanary's cleanup.
	t.Cleanup(func() {
		if err := set("THAWED"); err != nil {
			t.Error(err)
		}
	})
	pids, err := descendants(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(cg, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stopped := pids[len(pids)-1]
	if err := unix.Kill(stopped, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(retry(time.Second, func() error { return inState(stopped, "T") }), set("FROZEN")); err != nil {
		t.Fatal(err)
	}
	thawed := false
	start := time.Now()
	_, err = e.Dump(t.Context(), DumpOptions{
		PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true, LeaveRunning: true,
		FreezeCgroup: cg, Deadline: time.Second,
		Thaw: func() error { thawed = true; return set("THAWED") },
	})
	t.Logf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
	if err == nil {
		t.Log("this kernel does not hang here")
	} else if !errors.Is(err, ErrDeadline) || !thawed || errors.Is(err, ErrTraced) || errors.Is(err, ErrStuck) {
		t.Errorf("error is %v, thawed %v", err, thawed)
	}
	if err := errors.Join(set("THAWED"), unix.Kill(stopped, unix.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	if err := c.waitProgress(t.Context(), cmd.Process.Pid); err != nil {
		t.Error(err)
	}
}

// inState is nil when a process is in a state, as /proc/PID/stat has it.
func inState(pid int, state string) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	var name, got string
	if _, err := fmt.Sscanf(string(b), "%d %s %s", new(int), &name, &got); err != nil {
		return err
	}
	if got != state {
		return fmt.Errorf("process %d is in state %s", pid, got)
	}
	return nil
}
