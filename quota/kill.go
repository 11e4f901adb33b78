package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	killPollFirst = 200 * time.Microsecond
	killPollLast  = 10 * time.Millisecond
	// killLift is how long a killed group's io limits stay.
	killLift = 500 * time.Millisecond
	// removeLimit is how long Remove tries again while a cgroup is busy.
	removeLimit = 2 * time.Second
)

// KillAll ends every process of the group, frozen ones too, and returns when
// none is left or ctx ends; then the error matches ErrPopulated and names
// them. A group that is absent is fine.
//
// The signal is sent before thawing: a group that was frozen for a dump does
// not get to run another instruction of its own. cgroup2 lets SIGKILL through
// to frozen tasks, with the v1 freezer it works on thawing.
func (g Group) KillAll(ctx context.Context) error {
	if err := g.check(); err != nil {
		return err
	}
	var lifted error
	lift := time.Now().Add(killLift)
	for step := killPollFirst; ; step = min(step*2, killPollLast) {
		pids, err := g.allPIDs()
		if err != nil {
			return fmt.Errorf("kill %s: %w", g.name, err)
		}
		if err := g.killOnce(pids); err != nil {
			return fmt.Errorf("kill %s: %w", g.name, err)
		}
		if len(pids) > 0 && time.Now().After(lift) {
			lifted = g.liftIO() // an error matters only if they do not end
		}
		if err := g.Thaw(); err != nil {
			return fmt.Errorf("kill %s: %w", g.name, err)
		}
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("kill %s: %w: %s: %w", g.name, ErrPopulated, taskList(named(pids)), context.Cause(ctx)), lifted)
		case <-time.After(step):
		}
	}
}

// liftIO takes the io limits of the group away, which lets through at once what
// waits for them.
func (g Group) liftIO() error {
	steps, err := g.planIO(Limits{})
	if err == nil {
		err = g.mounts.runSteps(steps)
	}
	if err == nil || vanished(err) {
		return nil
	}
	return fmt.Errorf("lift the io limits of %s: %w", g.name, err)
}

// killOnce signals all of the list. cgroup.kill also catches what is just being
// forked. The others, which are in v1 hierarchies only, are signalled through
// pidfds taken before the group is read again: a pid that was given to another
// process meanwhile is not hit.
func (g Group) killOnce(pids []int) error {
	if len(pids) == 0 {
		return nil
	}
	if dir := g.Unified(); dir != "" {
		// Absent before Linux 5.14; EOPNOTSUPP in a threaded cgroup.
		err := writeText(dir+"/cgroup.kill", "1")
		if err != nil && !vanished(err) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	fds := map[int]int{}
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd) // nothing was written
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0) // close-on-exec by itself
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if errors.Is(err, unix.EMFILE) && len(fds) > 0 {
			break // the rest is next
		}
		if err != nil {
			return fmt.Errorf("pidfd of process %d: %w", pid, err)
		}
		fds[pid] = fd
	}
	still, err := g.allPIDs()
	if err != nil {
		return err
	}
	for _, pid := range still {
		fd, ok := fds[pid]
		if !ok {
			continue // new: its turn is next
		}
		err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// named returns the tasks that still exist.
func named(pids []int) []Task {
	var list []Task
	for _, pid := range pids {
		if t, err := readTask(pid); err == nil {
			list = append(list, t)
		}
	}
	return list
}

// Remove removes the group and all cgroups below it from every hierarchy. It
// kills nothing: while processes are left, it tries again for 2 s or until ctx
// ends, and then the error matches ErrPopulated. Absent is fine.
func (g Group) Remove(ctx context.Context) error {
	if err := g.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	var errs []error
	for _, dir := range g.each() {
		if err := removeTree(ctx, dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup: %w", err))
		}
	}
	return errors.Join(append(errs, g.mounts.release())...)
}

// removeTree removes directories only, the lowest first. The kernel answers
// EBUSY for a while after the last process has ended.
func removeTree(ctx context.Context, dir string) error {
	for step := killPollFirst; ; step = min(step*2, killPollLast) {
		busy, err := removeOnce(dir)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			pids, listErr := idsBelow(busy, "cgroup.procs")
			if len(pids) > 0 && listErr == nil {
				return fmt.Errorf("%s: %w: %s", busy, ErrPopulated, taskList(named(pids)))
			}
			return errors.Join(err, listErr)
		case <-time.After(step):
		}
	}
}

// removeOnce returns the directory that it could not remove.
func removeOnce(dir string) (string, error) {
	var dirs []string
	err := eachDir(dir, func(path string) error {
		dirs = append(dirs, path)
		return nil
	})
	if err != nil {
		return dir, err
	}
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !vanished(err) {
			return d, fmt.Errorf("rmdir %s: %w", d, err)
		}
	}
	return "", nil
}
