package container

import (
	"context"
	"errors"

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
