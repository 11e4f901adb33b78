package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
)

// leavePoll is how often a supervisor that waits looks whether it is to leave.
const leavePoll = 50 * time.Millisecond

// restart starts the container anew after a while, and again until it comes up.
// An operation that wants the container otherwise marks it as leaving, which
// ends the supervisor: then restart answers nil.
func (s *supervisor) restart(ctx context.Context, backoff time.Duration) *instance {
	for ; ; backoff = min(max(2*backoff, time.Second), time.Minute) {
		if !s.linger(backoff) {
			return nil
		}
		inst, err := s.again(ctx)
		if err == nil {
			return inst
		}
		s.log.Error("restart", "err", err)
	}
}

// linger waits and answers false when the supervisor is to leave.
func (s *supervisor) linger(d time.Duration) bool {
	for end := time.Now().Add(d); ; time.Sleep(leavePoll) {
		if _, err := os.Lstat(s.m.leavingFile(s.req.UID)); err == nil {
			return false
		}
		if time.Now().After(end) {
			return true
		}
	}
}

// again starts the container with its configuration as it is now. It answers nil
// when the container is another's now.
func (s *supervisor) again(ctx context.Context) (_ *instance, err error) {
	lock, err := s.lockUnlessLeaving(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // the container is no more
	}
	if err != nil || lock == nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	l := &Locked{m: s.m, lock: lock}
	if l.Config, l.State, err = s.m.read(s.req.Name); err != nil {
		return nil, err
	}
	if l.Config.UID != s.req.UID || l.State.underWay() || l.State.Suspended != "" || !l.backingOff() {
		return nil, nil //nolint:nilnil // documented
	}
	s.req.Image = nil
	s.req.Launch = newUID()
	s.req.Volume = filepath.Join(filepath.Dir(s.req.Volume), l.State.Volume)
	if len(l.State.Overlay) > 0 { // a cold start takes the saved configuration
		l.State.Overlay = nil
		if err := l.SaveState(); err != nil {
			return nil, err
		}
	}
	s.req.Spec, s.req.Net, s.req.Limits = l.spec(), l.Config.netConfig(), l.Config.Limits
	s.req.Profile = l.Config.Profile.options()
	inst, err := s.bringUp(ctx, s.req)
	if err != nil {
		return nil, err
	}
	if err := ignoreAbsent(os.Remove(s.m.backoffFile(s.req.UID))); err != nil {
		s.log.Error("end the wait", "err", err)
	}
	return inst, nil
}

// lockUnlessLeaving waits for the container's lock; nil means that the supervisor
// is to leave.
func (s *supervisor) lockUnlessLeaving(ctx context.Context) (*statefile.Lock, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, leavePoll)
		lock, err := statefile.WaitLock(wait, s.m.lockFile(s.req.Name), "supervisor: restart")
		cancel()
		if err == nil || !errors.Is(err, statefile.ErrBusy) {
			return lock, err
		}
		if !s.linger(0) {
			return nil, nil //nolint:nilnil // documented
		}
	}
}
