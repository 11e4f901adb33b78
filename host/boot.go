package host

import (
	"context"
	"errors"

	"github.com/ctctl/ctctl/container"
)

// Boot brings up what was created to come up with the host: suspended containers
// go on where they were, stopped ones start. It goes on after an error and
// returns the names of those that it brought up.
func (h *Host) Boot(ctx context.Context) (up []string, err error) {
	list, err := h.Containers.List(ctx)
	errs := []error{err}
	for _, info := range list {
		if !info.Config.Onboot || ctx.Err() != nil {
			continue
		}
		name := info.Config.Name
		if _, err := h.Containers.Repair(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		if info, err = h.Containers.Get(ctx, name); err != nil {
			errs = append(errs, err)
			continue
		}
		switch info.Status {
		case container.Suspended:
			err = h.Checkpoints.Resume(ctx, name)
		case container.Stopped:
			err = h.Containers.Start(ctx, name)
		default:
			continue
		}
		errs = append(errs, err)
		if err == nil {
			up = append(up, name)
		}
	}
	return up, errors.Join(append(errs, ctx.Err())...)
}
