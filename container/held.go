package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

// What package checkpoint needs of a container that is held.

// Runtime is libcontainer's view of the running container.
func (l *Locked) Runtime() (*runc.Container, error) {
	return runc.Load(l.spec().StateDir, l.Config.UID)
}

// Rootfs is where the container's root is mounted in its supervisor's mount namespace.
func (l *Locked) Rootfs() string { return l.spec().Rootfs }

// Group is the container's cgroup.
func (l *Locked) Group() (quota.Group, error) {
	g, err := quota.Open(l.Config.CgroupName())
	return g.WithPool(l.m.Volumes.Path(l.State.Volume)), err
}

// Volumes is the host's storage.
func (l *Locked) Volumes() storage.Volumes { return l.m.Volumes }

// Begin records the intent of an operation before its first effect.
func (l *Locked) Begin(in Intent) error {
	in.Started = time.Now().UTC()
	l.State.Intent = &in
	return l.SaveState()
}

// Finish records that no operation is under way any more.
func (l *Locked) Finish() error { return l.finish() }

// Settled lets a container go on whose launch was interrupted after the commit,
// and gives it a supervisor; of one that has ended since, nothing is left.
func (l *Locked) Settled(ctx context.Context) error {
	return errors.Join(l.Release(ctx, false), l.tidy(ctx))
}

// Tidy clears what a run that has ended left.
func (l *Locked) Tidy(ctx context.Context) error { return l.tidy(ctx) }

// Silence unplugs the container from the outside: what is sent to it from now on
// is lost on the way, and sent again by its peers, rather than acknowledged by a
// kernel whose sockets are about to end.
func (l *Locked) Silence(ctx context.Context) error {
	return netns.Silence(ctx, l.Effective().netConfig())
}

// Rejoin undoes Silence.
func (l *Locked) Rejoin(ctx context.Context) error { return netns.Join(ctx, l.Effective().netConfig()) }

// Detach removes what the host's network has of a container that is down.
func (l *Locked) Detach(ctx context.Context) error {
	return netns.Leave(ctx, l.Effective().netConfig(), false)
}

// Release lets a container go on whose dump was interrupted or failed: it waits
// until no CRIU traces its tasks, gives them their connections back, removes
// CRIU's packet filter, thaws and plugs the network in. With stayFrozen it was
// paused before and stays so. A container that was not frozen is not disturbed.
//
// An error is ErrUndo: the container may not go on.
func (l *Locked) Release(ctx context.Context, stayFrozen bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: let the container go on: %w", ErrUndo, err)
		}
	}()
	run, err := l.m.readRun(l.Config.UID)
	if err != nil || !run.Alive() {
		return err
	}
	g, err := l.Group()
	if err != nil {
		return err
	}
	if err := untraced(ctx, g); err != nil {
		// A tracer that does not end may itself wait for a frozen task.
		if terr := g.Thaw(); terr != nil {
			return errors.Join(err, terr)
		}
		if err := untraced(ctx, g); err != nil {
			return err
		}
	}
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	// Connections first: as long as the network is locked nothing comes in that
	// a process could fail to read.
	err = errors.Join(criu.EndRepair(pids), netns.CleanLocks(ctx, run.PID), l.Rejoin(ctx))
	if stayFrozen {
		return err
	}
	return errors.Join(err, g.Thaw())
}

const (
	tracerGrace = 5 * time.Second // CRIU notices its caller's end at its next message
	tracerPoll  = 5 * time.Millisecond
)

// untraced waits until no task of the group has a tracer, and ends a CRIU that
// does not let go: the kernel then detaches its tracees.
func untraced(ctx context.Context, g quota.Group) error {
	deadline := time.Now().Add(tracerGrace)
	killed := map[int]bool{}
	for {
		tracers, err := tracersOf(g)
		if err != nil || len(tracers) == 0 {
			return err
		}
		if time.Now().After(deadline.Add(tracerGrace)) {
			return fmt.Errorf("%w: the container is still traced by process %v", ErrTimeout, tracers)
		}
		if time.Now().After(deadline) {
			for _, pid := range tracers {
				if !killed[pid] && isCRIU(pid) {
					killed[pid] = true
					if err := ignoreGone(unix.Kill(pid, unix.SIGKILL)); err != nil {
						return err
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tracerPoll):
		}
	}
}

func tracersOf(g quota.Group) ([]int, error) {
	pids, err := g.PIDs()
	if err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	var out []int
	for _, pid := range pids {
		t, err := strconv.Atoi(procStatus(pid, "TracerPid"))
		// A debugger inside the container is none of ours.
		if err == nil && t > 0 && !seen[t] && isCRIU(t) {
			seen[t] = true
			out = append(out, t)
		}
	}
	return out, nil
}

func isCRIU(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "criu"
}

// ExecSessions lists the processes inside that are not init's descendants: they
// were started by exec, are in no image, and end with the running instance.
func (l *Locked) ExecSessions() ([]int, error) {
	run, err := l.m.readRun(l.Config.UID)
	if err != nil || run == nil {
		return nil, err
	}
	g, err := l.Group()
	if err != nil {
		return nil, err
	}
	pids, err := g.PIDs()
	if err != nil {
		return nil, err
	}
	parent := map[int]int{}
	for _, p := range pids {
		if n, err := strconv.Atoi(procStatus(p, "PPid")); err == nil {
			parent[p] = n
		}
	}
	var out []int
	for p := range parent {
		if !descends(p, run.PID, parent) {
			out = append(out, p)
		}
	}
	return out, nil
}

func descends(pid, root int, parent map[int]int) bool {
	for range len(parent) + 1 {
		if pid == root {
			return true
		}
		next, ok := parent[pid]
		if !ok {
			return false
		}
		pid = next
	}
	return false
}

// MemoryBytes is an upper estimate of the image of the container's processes.
func (l *Locked) MemoryBytes() (int64, error) {
	g, err := l.Group()
	if err != nil {
		return 0, err
	}
	pids, err := g.PIDs()
	if err != nil {
		return 0, err
	}
	var kib int64
	for _, pid := range pids {
		for _, f := range []string{"RssAnon", "RssShmem", "VmSwap"} {
			var n int64
			if _, err := fmt.Sscanf(procStatus(pid, f), "%d kB", &n); err == nil {
				kib += n
			}
		}
	}
	return kib << 10, nil
}
