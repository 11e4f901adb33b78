package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/preflight"
)

// AreaCheckpoint is of what a checkpoint would be like. The areas of what stands
// in its way are those of package preflight.
const AreaCheckpoint = "checkpoint"

// Purpose is what a container is to be checkpointed for.
type Purpose string

const (
	ForAny      Purpose = ""
	ForSnapshot Purpose = "snapshot"
	ForSuspend  Purpose = "suspend"
	ForRollback Purpose = "rollback"
)

// Purposes are those that can be asked for.
var Purposes = []Purpose{ForSnapshot, ForSuspend, ForRollback}

// Preflight finds out whether a running container could be checkpointed now, and
// what stands in the way. Errors: those of checkpoint.Manager.Preflight.
func (h *Host) Preflight(ctx context.Context, name string, p Purpose) (Report, error) {
	x := &examination{o: h.Options, root: true}
	r, err := h.Checkpoints.Preflight(ctx, name)
	if err == nil {
		x.live(r, p)
	}
	return x.report, err
}

// processes adds to an examination what Preflight says; of a container that does
// not run there is nothing to say.
func (x *examination) processes(ctx context.Context, h *Host, name string) error {
	r, err := h.Checkpoints.Preflight(ctx, name)
	if errors.Is(err, container.ErrState) || errors.Is(err, preflight.ErrGone) {
		return nil
	}
	if err == nil {
		x.live(r, ForAny)
	}
	return err
}

var results = map[preflight.Level]Result{preflight.Pass: Pass, preflight.Warn: Warn, preflight.Fail: Fail}

func (x *examination) live(r preflight.Report, p Purpose) {
	for _, f := range r.Findings {
		if p == ForSnapshot && f.Code == "exec-session" {
			continue // it goes on
		}
		what := f.What
		if subject := f.Subject(); subject != "" {
			what = subject + ": " + what
		}
		if f.More > 0 {
			what += fmt.Sprintf(" (and %d more)", f.More)
		}
		if f.Level != preflight.Pass {
			what += "; CRIU: " + f.CRIU
		}
		x.add(f.Area, results[f.Level], f.Cure, "%s", what)
		if f.Level != preflight.Pass {
			x.report.Findings[len(x.report.Findings)-1].Process = &f
		}
	}
	if r.Omitted > 0 {
		x.add(AreaCheckpoint, Warn, "", "%d more findings are not listed", r.Omitted)
	}
	if r.OK() {
		x.pass(AreaCheckpoint, "%d processes, about %.1f MiB in memory, would stand still for about %v",
			r.Processes, float64(r.EstimatedBytes)/(1<<20), r.EstimatedFrozen.Round(10*time.Millisecond))
	}
}
