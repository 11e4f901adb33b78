package checkpoint

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/preflight"
	"github.com/ctctl/ctctl/quota"
)

// BlockedError says what stands in the way of a checkpoint. It is ErrUndumpable,
// and nothing has been frozen.
type BlockedError struct {
	Report preflight.Report
}

// Error names the first process and what to do about it.
func (e *BlockedError) Error() string {
	list := e.Report.Failures()
	if len(list) == 0 {
		return ErrUndumpable.Error()
	}
	text := fmt.Sprintf("%v: %s", ErrUndumpable, list[0])
	if more := len(list) - 1 + e.Report.Omitted; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// Is makes it ErrUndumpable.
func (e *BlockedError) Is(target error) bool { return target == ErrUndumpable }

// Preflight looks at the processes of a running or paused container, without
// stopping or holding it, for what CRIU could not save. Errors: ErrNotFound and
// StateError of container, preflight.ErrGone.
func (m *Manager) Preflight(ctx context.Context, name string) (preflight.Report, error) {
	l, err := m.Containers.Live(name)
	if err != nil {
		return preflight.Report{}, err
	}
	r, err := examine(ctx, l.Runtime, l.Group, name, l.Status == container.Paused)
	if err != nil {
		return r, &container.OpError{Op: "pre-flight", Name: name, Err: err}
	}
	return r, nil
}

// examine says what is known of the container to the pre-flight.
func examine(ctx context.Context, rt *runc.Container, group quota.Group, name string, paused bool) (preflight.Report, error) {
	pid, err := rt.PID()
	if err != nil {
		return preflight.Report{}, err
	}
	ext, err := rt.External()
	if err != nil {
		return preflight.Report{}, err
	}
	return preflight.Examine(ctx, preflight.Target{
		Init: pid, PIDs: group.PIDs, Name: name, External: mountPoints(ext.Dump),
		GhostLimitBytes: criu.GhostLimitBytes, FreezerV1: group.Unified() == "", Paused: paused,
	})
}

// mountPoints takes the directories out of what CRIU is told: "mnt[/dev/null]:…".
func mountPoints(external []string) []string {
	var out []string
	for _, e := range external {
		if rest, ok := strings.CutPrefix(e, "mnt["); ok {
			if end := strings.LastIndex(rest, "]:"); end >= 0 {
				out = append(out, rest[:end])
			}
		}
	}
	return out
}

// preflight refuses, before anything is frozen, what CRIU would stumble over with
// the container standing still, or wait for in vain. It looks twice: what a
// process just holds for an instant is no reason.
func (c *cut) preflight(ctx context.Context) error {
	defer c.m.trace("pre-flight", time.Now())
	if c.m.NoPreflight {
		return nil
	}
	rt, err := c.l.Runtime()
	if err != nil {
		return err
	}
	for again := false; ; again = true {
		report, err := examine(ctx, rt, c.group, c.l.Config.Name, c.paused)
		if err != nil {
			return err
		}
		if report.OK() {
			return nil
		}
		if again {
			return &BlockedError{Report: report}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}
