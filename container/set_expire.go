package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
)

// expire takes back what was changed for a while that is over. On one that is
// stopped nothing of it is in effect, and its next start forgets it.
func (l *Locked) expire(ctx context.Context) error {
	now := time.Now()
	rest := lasting(l.State.Overlay, now)
	if len(rest) == len(l.State.Overlay) {
		return nil
	}
	c := change{from: l.Effective(), saved: l.Config, overlay: rest, noProbe: true}
	var err error
	switch c.status, c.run, err = l.Status(); {
	case err != nil:
		return err
	case c.status == Stopped:
		return nil
	case c.status == Suspended:
		if c.overlay, err = networkLasts(l.State.Overlay, now); err != nil {
			return err
		}
	}
	if c.to, err = overlaid(l.Config, c.overlay); err != nil {
		return err
	}
	if err := c.to.Validate(); err != nil {
		return err
	}
	if err := l.carryOut(ctx, c); err != nil {
		return fmt.Errorf("take back what was changed for a while: %w", err)
	}
	l.m.log().Info("took back what was changed for a while", "container", l.Config.Name)
	return nil
}

// networkLasts keeps of layers whose time is over the network: processes of a
// suspended container have sockets there, which come back only to the addresses
// that they had. Its supervisor takes them back once it runs.
func networkLasts(layers []Layer, now time.Time) ([]Layer, error) {
	var out []Layer
	for _, y := range layers {
		if !y.expired(now) {
			out = append(out, y)
			continue
		}
		p, err := parseTree(y.Patch)
		if err != nil {
			return nil, fmt.Errorf("unsaved change: %w", err)
		}
		if p["network"] == nil {
			continue
		}
		if y.Patch, err = json.Marshal(patch{"network": p["network"]}); err != nil {
			return nil, err
		}
		out = append(out, y)
	}
	return out, nil
}

// revertRetry is how long a supervisor waits after it could not take a change
// back, for instance because more memory is in use than was allowed before.
const revertRetry = 10 * time.Second

// reverter knows when a supervisor has something to take back, or to announce.
type reverter struct {
	seen    os.FileInfo // state.json when it was read
	next    time.Time   // zero: nothing
	wrong   string      // what was logged last
	network netns.Config
	moved   bool // network is another than it was
}

// due says whether the time of a change is over. The state is read only when it
// has been written.
func (s *supervisor) due(r *reverter) bool {
	fi, err := os.Stat(s.m.stateFile(s.req.Name))
	if err != nil {
		return false
	}
	if r.seen == nil || !os.SameFile(fi, r.seen) || !fi.ModTime().Equal(r.seen.ModTime()) {
		c, st, err := s.m.read(s.req.Name)
		if err != nil {
			return false // it shows at the next operation
		}
		r.seen, r.next = fi, time.Time{}
		if now := s.m.effective(c, st).netConfig(); st.Intent == nil && !reflect.DeepEqual(now, r.network) {
			r.network, r.moved = now, true
		}
		for _, y := range st.Overlay {
			if !y.Until.IsZero() && (r.next.IsZero() || y.Until.Before(r.next)) {
				r.next = y.Until
			}
		}
	}
	return !r.next.IsZero() && time.Now().After(r.next)
}

// revert takes back what is over, unless somebody is at work, who does it.
func (s *supervisor) revert(r *reverter) {
	err := s.underLock("supervisor: take back", func(ctx context.Context, l *Locked) error {
		if l.State.Intent != nil {
			return nil // interrupted: the next command settles that first
		}
		return l.expire(ctx)
	})
	r.wrong, r.next = s.complain("take a change back", r.wrong, err), time.Now().Add(revertRetry)
}

// complain logs an error once.
func (s *supervisor) complain(what, last string, err error) string {
	if err == nil {
		return ""
	}
	if err.Error() != last {
		s.log.Error(what, "err", err)
	}
	return err.Error()
}

// underLock runs do on the container as it is now, unless an operation has it.
func (s *supervisor) underLock(op string, do func(context.Context, *Locked) error) (err error) {
	lock, err := statefile.TryLock(s.m.lockFile(s.req.Name), op)
	if errors.Is(err, statefile.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	l := &Locked{m: s.m, lock: lock}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	if l.Config, l.State, err = s.m.read(s.req.Name); err != nil || l.Config.UID != s.req.UID {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return do(ctx, l)
}
