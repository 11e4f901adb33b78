package container

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
)

// ReapNetwork removes from the host's network what looks like a container's and
// belongs to none of this state root: links, routes that swallow, entries of the
// packet filter. It answers what it removed. Nothing on the host says which state
// root it belongs to: where several share a network namespace it is not for use.
// While a container is busy it refuses with statefile.ErrBusy, and nothing is removed.
func (m *Manager) ReapNetwork(ctx context.Context) (removed []string, err error) {
	names, err := m.Names()
	if err != nil {
		return nil, err
	}
	held := map[string]bool{}
	var known []netns.Config
	for _, n := range names {
		l, err := m.Lock(ctx, n, "net repair")
		if errors.Is(err, ErrNotFound) {
			continue // its interrupted create or destroy has been settled just now
		}
		if err != nil {
			return nil, err
		}
		// Held to the end, so that nobody adds an interface meanwhile.
		defer func() { err = errors.Join(err, l.Unlock()) }()
		held[n] = true
		known = append(known, l.Config.netConfig(), l.Effective().netConfig())
	}
	// After the containers' locks, as everybody who waits for it does.
	lock, err := statefile.WaitLock(ctx, filepath.Join(m.StateRoot, "host.lock"), "net repair")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if names, err = m.Names(); err != nil {
		return nil, err
	}
	for _, n := range names {
		if !held[n] {
			return nil, fmt.Errorf("%w: %s was created meanwhile", statefile.ErrBusy, n)
		}
	}
	if removed, err = netns.Reap(ctx, known); err != nil {
		return removed, err
	}
	return removed, netns.Forget(ctx)
}
