package checkpoint

import (
	"errors"
	"fmt"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
)

// checkRights compares what the images would give to processes with what the
// container's configuration gives: an image is code, and CRIU does as it says.
// The limit is the configuration c that was recorded with the image, which itself
// must not be wider than the container's now: a snapshot from a time with the
// host's user namespace does not turn that off again.
func checkRights(dir string, c, now container.Config) error {
	if c.IDs() == nil && now.IDs() != nil {
		return fmt.Errorf("%w: it is of a time when the container had no user namespace", runc.ErrExcess)
	}
	allowed, err := runc.CapabilityMask(c.System(), c.IDs())
	if err != nil {
		return err
	}
	tasks, err := criu.InspectTasks(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(tasks) == 0 {
		return fmt.Errorf("%w: %s holds no task", ErrDamaged, dir)
	}
	for _, t := range tasks {
		if err := checkTask(t, allowed, !c.System()); err != nil {
			return fmt.Errorf("%w: process %d (%s): %w", runc.ErrExcess, t.PID, t.Comm, err)
		}
	}
	return checkMaps(dir, c)
}

func checkTask(t criu.TaskCreds, allowed uint64, noNewPrivs bool) error {
	for name, set := range map[string]uint64{
		"permitted": t.Permitted, "effective": t.Effective, "inheritable": t.Inheritable, "bounding": t.Bounding, "ambient": t.Ambient,
	} {
		if extra := set &^ allowed; extra != 0 {
			return fmt.Errorf("%s capabilities %#x are not the container's", name, extra)
		}
	}
	// Threads that share their leader's filters have none in the image: CRIU sets
	// them through the leader. What they have in the end is checked before they run.
	if t.TID == t.PID && t.Seccomp != criu.SeccompFilter {
		return errors.New("has no seccomp filter")
	}
	if noNewPrivs && !t.NoNewPrivs {
		return errors.New("may gain privileges")
	}
	return nil
}

// checkMaps wants exactly the one id range of the container.
func checkMaps(dir string, c container.Config) error {
	uids, gids, err := criu.InspectUserNS(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	ids := c.IDs()
	for _, m := range [][]criu.IDMap{uids, gids} {
		switch {
		case ids == nil && len(m) == 0:
		case ids == nil || len(m) != 1:
			return fmt.Errorf("%w: id maps %v are not the container's", runc.ErrExcess, m)
		case m[0] != criu.IDMap{ContainerID: 0, HostID: ids.Base, Count: ids.Size}:
			return fmt.Errorf("%w: id map %v is not the container's %+v", runc.ErrExcess, m[0], *ids)
		}
	}
	return nil
}
