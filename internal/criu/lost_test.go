package criu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CRIU itself may miss it, and wait until the deadline.
func TestARestoreWhoseFirstProcessHasEndedUnnoticedEndsSoon(t *testing.T) {
	e, dir := fake(t, "bereft")
	killed := false
	_, _, err := e.Restore(t.Context(), RestoreOptions{
		Images: dir, Sibling: true, Deadline: time.Hour, Kill: func() error { killed = true; return nil },
	})
	if !errors.Is(err, ErrTaskLost) || errors.Is(err, ErrDeadline) {
		t.Fatalf("error is %v, want ErrTaskLost", err)
	}
	if !killed || alive(fakePID(t, dir)) {
		t.Errorf("tasks killed: %v, criu lives: %v", killed, alive(fakePID(t, dir)))
	}
	root, err := os.ReadFile(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join("/proc", string(root))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first process was not waited for: %v", err)
	}
}

func TestARestoreWhoseFirstProcessIsKilledFailsAndLeavesNoProcess(t *testing.T) {
	e := engine(t)
	for _, when := range []string{EventSetupNamespaces, EventPostRestore} {
		t.Run(when, func(t *testing.T) {
			c, cmd := startCanary(t)
			if _, err := e.Dump(t.Context(), DumpOptions{PID: cmd.Process.Pid, Root: c.root(), Images: c.images(), OwnNetNS: true}); err != nil {
				t.Fatal(err)
			}
			root := 0
			err := c.inMounts(func() error {
				_, _, err := e.Restore(t.Context(), RestoreOptions{
					Images: c.images(), Root: c.root(), OwnNetNS: true, Sibling: true,
					Notify: func(_ context.Context, ev Event) error {
						if ev.Script != when {
							return nil
						}
						root = ev.PID
						return unix.Kill(root, unix.SIGKILL)
					},
				})
				return err
			})
			if err == nil {
				t.Fatal("the restore has succeeded")
			}
			if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(root))); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("pid %d is there still: %v", root, err)
			}
		})
	}
}
