package statefile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

const holdEnv = "STATEFILE_TEST_HOLD"

// TestMain lets the test binary be the second process of the lock tests.
func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	m.Run() // the exit code is passed on (testing.M.Run, since Go 1.15)
}

// hold locks path, says so, and gives the lock back when stdin ends.
func hold(path string) {
	l, err := TryLock(path, "hold \"it\"\x1b[1m")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("locked")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Println(err)
	}
	if err := l.Unlock(); err != nil {
		fmt.Println(err)
	}
}

type other struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startOther(t *testing.T, path string) other {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "locked\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	return other{cmd, stdin}
}

func (o other) finish(t *testing.T) {
	t.Helper()
	if err := errors.Join(o.stdin.Close(), o.cmd.Wait()); err != nil {
		t.Error(err)
	}
}

func TestALockOfAnotherProcessIsBusyAndNamesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	o := startOther(t, path)
	_, err := TryLock(path, "start")
	var busy *BusyError
	if !errors.As(err, &busy) || !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	if busy.Path != path || busy.Holder.PID != o.cmd.Process.Pid || time.Since(busy.Holder.Since) > time.Minute {
		t.Errorf("got %+v", busy)
	}
	for _, want := range []string{path, fmt.Sprint(o.cmd.Process.Pid), `hold \"it\"\x1b[1m`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
	o.finish(t)
	l, err := TryLock(path, "start")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestALockEndsWithAProcessThatIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	o := startOther(t, path)
	if err := o.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Wait(); err == nil {
		t.Error("the other process was not killed")
	}
	l, err := TryLock(path, "start")
	if err != nil {
		t.Fatal(err)
	}
	if h := readHolder(l.f); h.PID != os.Getpid() {
		t.Errorf("the dead holder is still named: %+v", h)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestWaitLockGetsTheLockWhenTheHolderGivesItBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	o := startOther(t, path)
	finished := make(chan struct{})
	time.AfterFunc(30*time.Millisecond, func() {
		defer close(finished)
		o.finish(t)
	})
	l, err := WaitLock(t.Context(), path, "start")
	<-finished
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestWaitLockEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := TryLock(path, "first")
	if err != nil {
		t.Fatal(err)
	}
	timeout, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	canceled, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	for name, tt := range map[string]struct {
		ctx      context.Context
		canceled bool
	}{"deadline": {timeout, false}, "cancel": {canceled, true}} {
		_, err := WaitLock(tt.ctx, path, "second")
		if !errors.Is(err, ErrBusy) || errors.Is(err, context.Canceled) != tt.canceled {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestUnlockTwiceDoesNotTakeAwayTheLockOfTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryLock(path, "first")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	second, err := TryLock(path, "second")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Unlock(); err != nil {
		t.Error(err)
	}
	if _, err := TryLock(path, "third"); !errors.Is(err, ErrBusy) {
		t.Errorf("the second lock is gone: %v", err)
	}
	if err := second.Unlock(); err != nil {
		t.Error(err)
	}
}

// A container's lock file goes with its directory; whoever had opened the old
// one must not believe to have the lock of a new container of that name.
func TestALockExcludesOthersThoughItsFileIsRemovedAgainAndAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside, both atomic.Int32
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for range 500 {
				l, err := TryLock(path, "x")
				if errors.Is(err, ErrBusy) {
					continue
				}
				if err != nil {
					return err
				}
				if inside.Add(1) > 1 {
					both.Add(1)
				}
				runtime.Gosched()
				inside.Add(-1)
				if err := errors.Join(os.Remove(path), l.Unlock()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := both.Load(); n > 0 {
		t.Errorf("two had the lock at once, %d times", n)
	}
}

func TestALockInAnAbsentDirectoryIsErrNotExist(t *testing.T) {
	if _, err := TryLock(filepath.Join(t.TempDir(), "gone", "lock"), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestAHolderThatCannotBeReadIsNotInvented(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := TryLock(path, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"pid": 12`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = TryLock(path, "y")
	var busy *BusyError
	if !errors.As(err, &busy) || busy.Holder != (Holder{}) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("got %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
}
