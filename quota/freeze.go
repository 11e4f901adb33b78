package quota

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// freezeLimit bounds a Freeze whose context has no deadline.
	freezeLimit = 10 * time.Second
	// vforkPause is how long a thawed group is left alone before the next try;
	// a vfork lasts until the child's exec, well below a millisecond.
	vforkPause = 10 * time.Millisecond
	// The state is looked at in steps from pollFirst to pollLast.
	pollFirst = poll(100 * time.Microsecond)
	pollLast  = poll(300 * time.Microsecond)
	// v1Attempt is how long one try with the v1 freezer lasts: while processes
	// keep appearing it can stay in FREEZING for ever, thawing ends that.
	v1Attempt = 100 * time.Millisecond
	// sleepAttempt is how long a task of a frozen group may stay in state D
	// before the group is thawed for another try. Where the kernel does not
	// tell what it waits for, that is what ends a vfork.
	sleepAttempt = 20 * time.Millisecond
)

// Both end a try: the group is thawed and frozen again.
var (
	errStillFreezing = errors.New("still freezing")
	errVfork         = errors.New("a vfork is in flight")
)

// Freeze stops every task of the group and of all cgroups below it and returns
// when they stand. It uses cgroup.freeze of cgroup2, and the v1 freezer only
// where that is missing: a task stopped by a signal and frozen by the v1
// freezer cannot be seized with ptrace, and whoever tries hangs in the kernel
// until the group is thawed.
//
// A task that waits in vfork(2) cannot be dumped: it counts as frozen, but
// stays in uninterruptible sleep (state D). Such a group is thawed, left alone
// for 10 ms and frozen again.
//
// When ctx ends (after 10 s if it has no deadline), the group is thawed first;
// the error is then a *FreezeError that names the tasks. Other errors:
// ErrNotFound, ErrUnsupported. Freezing a frozen group is fine.
func (g Group) Freeze(ctx context.Context) error {
	f, err := g.freezer()
	if err != nil {
		return fmt.Errorf("freeze %s: %w", g.name, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, freezeLimit)
		defer cancel()
	}
	err = g.freeze(ctx, f)
	if err == nil {
		return nil
	}
	if thaw := g.Thaw(); thaw != nil {
		return errors.Join(err, thaw)
	}
	return err
}

func (g Group) freeze(ctx context.Context, f freezer) error {
	last := FreezeError{Group: g.name, Cause: "no time left"} // what the last try met
	for ctx.Err() == nil {
		begin := time.Now()
		busy, err := f.try(ctx)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errVfork):
			last.Tasks, last.Cause = busy, "these tasks wait in vfork for a child that does not exec"
		case ctx.Err() != nil && len(last.Tasks) > 0 && time.Since(begin) < sleepAttempt:
			// Cut short; the try before tells more.
		case errors.Is(err, errStillFreezing), ctx.Err() != nil:
			last.Tasks, last.Cause = busy, "these tasks would not stop"
		default:
			return fmt.Errorf("freeze %s: %w", g.name, err)
		}
		if err := g.pause(ctx); err != nil {
			return err
		}
	}
	last.Err = context.Cause(ctx)
	return &last
}

// try freezes once. With an error it returns the tasks that are to blame.
func (f freezer) try(ctx context.Context) ([]Task, error) {
	if err := writeText(f.file, f.frozen); err != nil {
		return nil, err
	}
	if err := f.wait(ctx); err != nil {
		return f.running(), err
	}
	return f.settle(ctx)
}

// pause thaws and waits for the next try or the end of ctx.
func (g Group) pause(ctx context.Context) error {
	if err := g.Thaw(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(vforkPause):
	}
	return nil
}

// Thaw lets the tasks go on, in cgroup2 and in the v1 freezer, for CRIU may
// leave either frozen. A group that is absent or not frozen is fine.
func (g Group) Thaw() error {
	if err := g.check(); err != nil {
		return err
	}
	var errs []error
	for _, f := range g.freezers() {
		if err := writeText(f.file, f.thawed); err != nil && !vanished(err) {
			errs = append(errs, fmt.Errorf("thaw %s: %w", g.name, err))
		}
	}
	return errors.Join(errs...)
}

// Frozen tells what the kernel says of the freezers, true if one is closed. A group that is
// absent is not frozen.
func (g Group) Frozen() (bool, error) {
	if err := g.check(); err != nil {
		return false, err
	}
	for _, f := range g.freezers() {
		// What cgroup2 says in cgroup.events can be stale after a thaw, until
		// the first task has run; what was asked for is not.
		wish, err := readText(f.file)
		if err == nil && (f.v1 || wish == f.frozen) {
			var state string
			state, err = readText(f.state)
			if err == nil && f.isFrozen(state) {
				return true, nil
			}
		}
		if err != nil && !vanished(err) {
			return false, err
		}
	}
	return false, nil
}

// freezer is one of the two kernel freezers, for one group.
type freezer struct {
	dir            string // of the group
	file, state    string // written, read
	frozen, thawed string // written
	mark           string // state has this line when all tasks stand
	v1             bool
}

// freezers returns those that the host has, the one to use first.
func (g Group) freezers() []freezer {
	var list []freezer
	if dir := g.Unified(); dir != "" {
		list = append(list, freezer{
			dir: dir, file: dir + "/cgroup.freeze", state: dir + "/cgroup.events",
			frozen: "1", thawed: "0", mark: "frozen 1",
		})
	}
	if point, ok := g.mounts.v1["freezer"]; ok {
		dir := point + g.name
		list = append(list, freezer{
			dir: dir, file: dir + "/freezer.state", state: dir + "/freezer.state",
			frozen: "FROZEN", thawed: "THAWED", mark: "FROZEN", v1: true,
		})
	}
	return list
}

func (g Group) freezer() (freezer, error) {
	if err := g.check(); err != nil {
		return freezer{}, err
	}
	if !g.Exists() {
		return freezer{}, ErrNotFound
	}
	for _, f := range g.freezers() {
		if exists(f.file) {
			return f, nil
		}
	}
	return freezer{}, fmt.Errorf("no cgroup.freeze (Linux 5.2) and no v1 freezer: %w", ErrUnsupported)
}

func (f freezer) isFrozen(state string) bool {
	for line := range strings.Lines(state) {
		if strings.TrimSpace(line) == f.mark {
			return true
		}
	}
	return false
}

// wait looks at the state until it says that all tasks stand, or ctx ends.
func (f freezer) wait(ctx context.Context) error {
	file, err := os.Open(f.state)
	if err != nil {
		return err
	}
	defer file.Close()
	begin := time.Now()
	buf := make([]byte, 256)
	for p := pollFirst; ; p = p.next() {
		n, err := unix.Pread(int(file.Fd()), buf, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("read %s: %w", f.state, err)
		}
		if err == nil && f.isFrozen(string(buf[:n])) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.v1 && time.Since(begin) > v1Attempt {
			return errStillFreezing
		}
		if err := p.sleep(); err != nil {
			return err
		}
	}
}

// poll is the time to the next look.
type poll time.Duration

func (p poll) next() poll { return min(p+p/4, pollLast) }

// sleep sleeps in the kernel: the runtime's timers are only good to a
// millisecond when the process is idle, because they end in epoll_wait(2).
func (p poll) sleep() error {
	ts := unix.NsecToTimespec(int64(p))
	if err := unix.Nanosleep(&ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("nanosleep: %w", err)
	}
	return nil
}
