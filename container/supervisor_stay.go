package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

var exitSchema = statefile.Schema{Kind: "container-exit", Version: 1}

func (m *Manager) exitFile(uid string) string    { return filepath.Join(m.runDir(uid), "exit.json") }
func (m *Manager) leavingFile(uid string) string { return filepath.Join(m.runDir(uid), "leaving") }
func (m *Manager) backoffFile(uid string) string { return filepath.Join(m.runDir(uid), "backoff") }

// What the kernel ends init with when something inside calls reboot(2): SIGHUP to
// restart, SIGINT to halt or power off (pid_namespaces(7)). Nothing inside can send
// these signals to an init that does not handle them.
const (
	rebootExit   = 128 + int(unix.SIGHUP)
	powerOffExit = 128 + int(unix.SIGINT)
)

// quickReboot is how long a system must have run for its reboot to be immediate.
const quickReboot = 3 * time.Second

// stay waits for init's end and does what follows: nothing when an operation
// ended it on purpose, else the clean-up and perhaps a new start.
func (s *supervisor) stay(inst *instance) {
	backoff := time.Second
	for {
		began := time.Now()
		ended := make(chan struct{})
		var watching, counting sync.WaitGroup
		watching.Go(func() { s.watch(inst.pid, ended) })
		counting.Go(func() { s.keepUsage(ended) })
		code, err := inst.wait()
		close(ended)
		watching.Wait() // it writes to the run directory
		if err != nil {
			s.log.Error("wait", "err", err)
		}
		exit := Exit{Code: code, Time: time.Now().UTC()}
		s.log.Info("init ended", "code", code)
		if err := exitSchema.Write(s.m.exitFile(s.req.UID), &exit); err != nil {
			s.log.Error("record the exit", "err", err)
		}
		counting.Wait() // while the cgroup is there
		lived := time.Since(began)
		if lived > time.Minute {
			backoff = time.Second
		}
		wait := backoff
		if code == rebootExit && lived > quickReboot {
			wait = 0
		}
		if inst = s.after(exit, wait); inst == nil {
			return
		}
		backoff = min(2*backoff, time.Minute)
	}
}

// after cleans up behind an init that ended by itself and returns the next life,
// or nil when there is none.
func (s *supervisor) after(exit Exit, backoff time.Duration) *instance {
	ctx := context.Background()
	l, err := s.takeOver(ctx)
	if err != nil {
		s.log.Error("take the container", "err", err)
		return nil
	}
	if l == nil {
		return nil // the operation that ended it does the rest
	}
	l.State.LastExit = &exit
	s.req.Net = l.Effective().netConfig() // as it was changed since
	if !l.comesBack() {
		l.State.Overlay = nil
	}
	// What is suspended, or being rolled back, does not start anew.
	again := !l.State.underWay() && l.State.Suspended == "" && wantsRestart(l.Config, exit)
	if again {
		err = os.WriteFile(s.m.backoffFile(s.req.UID), nil, 0o600)
	}
	err = errors.Join(err, s.teardown(ctx, l.comesBack()), l.SaveState(), l.Unlock())
	if err != nil {
		s.log.Error("clean up", "err", err)
	}
	if !again {
		return nil
	}
	return s.restart(ctx, backoff)
}

// wantsRestart: a system that was rebooted or powered off from inside does as its
// administrator said, whatever the policy for failures is.
func wantsRestart(c Config, exit Exit) bool {
	if c.System() && (exit.Code == rebootExit || exit.Code == powerOffExit) {
		return exit.Code == rebootExit
	}
	return c.Restart == "always" || c.Restart == "on-failure" && exit.Code != 0
}

// takeOverPoll is how long init's end may go unnoticed while an operation that
// has nothing to do with it holds the container.
const takeOverPoll = 50 * time.Millisecond

// takeOver locks the container after init's end. It answers nil when an
// operation holds the container and said that it ends init on purpose.
func (s *supervisor) takeOver(ctx context.Context) (*Locked, error) {
	for {
		lock, err := statefile.TryLock(s.m.lockFile(s.req.Name), "supervisor: init ended")
		if err == nil {
			l := &Locked{m: s.m, lock: lock}
			l.Config, l.State, err = s.m.read(s.req.Name)
			if err != nil {
				return nil, errors.Join(err, lock.Unlock())
			}
			if run, err := s.m.readRun(s.req.UID); err != nil || run == nil || run.Supervisor != os.Getpid() {
				return nil, errors.Join(err, lock.Unlock()) // somebody cleaned up, or it has another life
			}
			return l, nil
		}
		if !errors.Is(err, statefile.ErrBusy) {
			return nil, err
		}
		if _, err := os.Lstat(s.m.leavingFile(s.req.UID)); err == nil {
			return nil, nil //nolint:nilnil // documented
		}
		// Whoever ends init on purpose says so before: it waits for this process,
		// in the downtime of a rollback, so nothing is waited for before looking.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(takeOverPoll):
		}
	}
}

// volumesIn knows where volumes are, which is all a supervisor needs.
type volumesIn string

func (v volumesIn) Path(name string) string { return filepath.Join(string(v), name) }

func (v volumesIn) Create(context.Context, string, storage.CreateOptions) error { return v.refuse() }

func (v volumesIn) Snapshot(context.Context, string, string, uint64) error { return v.refuse() }

func (v volumesIn) Delete(context.Context, string) error { return v.refuse() }

func (v volumesIn) refuse() error {
	return fmt.Errorf("%w: a supervisor changes no volumes", storage.ErrUnsupported)
}
