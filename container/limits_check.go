package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// CheckLimits compares the limits in effect with those that the kernel holds. Of a
// container that does not run the disk quota is compared only.
func (m *Manager) CheckLimits(ctx context.Context, name string) (diff []quota.Difference, err error) {
	defer wrapOp("check limits", name, &err)
	info, err := m.get(name)
	if err != nil {
		return nil, err
	}
	if info.Run.Alive() {
		if diff, err = m.cgroupDrift(info.Config, info.State); err != nil {
			return nil, err
		}
	}
	disk, err := m.diskDrift(ctx, info.Config)
	return append(diff, disk...), err
}

func (m *Manager) cgroupDrift(c Config, st State) ([]quota.Difference, error) {
	g, err := quota.Open(c.CgroupName())
	if err != nil {
		return nil, err
	}
	return g.WithPool(m.Volumes.Path(st.Volume)).Compare(inCgroup(c.Limits))
}

func (m *Manager) diskDrift(ctx context.Context, c Config) ([]quota.Difference, error) {
	limiter, ok := m.Volumes.(storage.Limiter)
	if !ok {
		return nil, nil
	}
	u, err := limiter.Usage(ctx, uint64(c.CTID))
	if errors.Is(err, storage.ErrUnsupported) && c.Limits.DiskBytes == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return quota.Limits{DiskBytes: c.Limits.DiskBytes}.Diff(quota.Limits{DiskBytes: u.LimitBytes}), nil
}

// restoreLimits makes the kernel hold the limits in effect, and says what it changed.
func (l *Locked) restoreLimits(ctx context.Context) (diff []quota.Difference, err error) {
	now := l.Effective()
	status, _, err := l.Status()
	if err != nil {
		return nil, err
	}
	if status == Running || status == Paused {
		if diff, err = l.m.cgroupDrift(now, l.State); err != nil {
			return nil, err
		}
	}
	if len(diff) > 0 {
		g, err := l.Group()
		if err != nil {
			return nil, err
		}
		if err := g.Apply(now.Limits); err != nil {
			return nil, err
		}
	}
	disk, err := l.m.diskDrift(ctx, now)
	if err == nil && len(disk) > 0 {
		err = l.setDiskLimit(ctx, now.Limits.DiskBytes)
	}
	return append(diff, disk...), err
}

// Needs is what the image of a suspended container needs to come back.
type Needs struct {
	MemoryBytes int64 // of its pages
	Tasks       int64 // processes and threads
}

// Check answers quota.ErrBelowUsage for limits in which it cannot come back.
func (n Needs) Check(is quota.Limits) error { return n.check(quota.Limits{}, is, n.MemoryBytes) }

// refuse is Check of limits that are tighter than they were, with something to spare.
func (n Needs) refuse(was, is quota.Limits) error { return n.check(was, is, n.ample()) }

// ample is memory for what the kernel itself needs beside the pages, too: page
// tables, stacks, sockets.
func (n Needs) ample() int64 { return n.MemoryBytes + n.MemoryBytes/32 + n.Tasks<<16 + 4<<20 }

func (n Needs) check(was, is quota.Limits, least int64) error {
	limit, wanted, needs := "", "", ""
	memory := fmt.Sprintf("%dM", n.ample()>>20+1)
	switch {
	case room(is) < min(room(was), least):
		limit, wanted, needs = "memory", quota.FormatBytes(is.MemoryBytes), memory
	case bound(is.MemoryHighBytes) < min(bound(was.MemoryHighBytes), least):
		limit, wanted, needs = "memory-high", quota.FormatBytes(is.MemoryHighBytes), memory
	case bound(is.PIDs) < min(bound(was.PIDs), n.Tasks):
		limit, wanted, needs = "pids", fmt.Sprint(is.PIDs), fmt.Sprint(n.Tasks)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s %s is too little for the image that it is suspended in, which needs %s to come back",
		quota.ErrBelowUsage, limit, wanted, needs)
}

// room is what limits leave for memory and swap together.
func room(l quota.Limits) int64 {
	if l.MemoryBytes == 0 || l.SwapBytes == quota.UnlimitedSwap || l.SwapBytes > math.MaxInt64-l.MemoryBytes {
		return math.MaxInt64
	}
	return l.MemoryBytes + l.SwapBytes
}

// bound is a limit of which 0 is none.
func bound(n int64) int64 { return cmp.Or(n, math.MaxInt64) }

// checkImage refuses limits in which a suspended container could not come back.
func (l *Locked) checkImage(c change) error {
	if c.status != Suspended || l.m.Needs == nil || c.from.Limits.Equal(c.to.Limits) {
		return nil
	}
	n, err := l.m.Needs(l)
	if err != nil {
		return err
	}
	return n.refuse(c.from.Limits, c.to.Limits)
}
