package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
)

// figures are all measurements on a container of one size.
type figures struct {
	mib                                    int
	idle                                   pause
	snapshot, dump, dumpFrozen             sample // dump and restore: CRIU alone
	snapshotPauses, dumpPauses             pauses
	rollback, rollbackOutage               sample
	suspend, resume, resumeAnswer, restore sample
	trace                                  map[string]*phases
}

var traced = []string{"snapshot create", "rollback", "suspend", "resume"}

// checkpoints measures containers of all sizes, one after the other.
func (r *rig) checkpoints(ctx context.Context) error {
	if err := r.host.CRIU.EnsureKdat(ctx, ""); err != nil {
		return err
	}
	var all []*figures
	for _, mib := range r.sizes {
		f := &figures{mib: mib, trace: map[string]*phases{}}
		for _, op := range traced {
			f.trace[op] = &phases{}
		}
		if err := r.measure(ctx, f); err != nil {
			return fmt.Errorf("container of %d MiB: %w", mib, err)
		}
		all = append(all, f)
	}
	return printCheckpoints(all)
}

func (r *rig) measure(ctx context.Context, f *figures) error {
	name := fmt.Sprintf("memory-%d", f.mib)
	if _, _, err := r.create(ctx, name, f.mib); err != nil {
		return err
	}
	if _, _, err := r.run(ctx, "start", name); err != nil {
		return err
	}
	progress("container of %d MiB: snapshots", f.mib)
	if err := r.snapshots(ctx, name, f); err != nil {
		return err
	}
	progress("container of %d MiB: rollbacks", f.mib)
	if err := r.rollbacks(ctx, name, f); err != nil {
		return err
	}
	progress("container of %d MiB: suspend, resume, restore", f.mib)
	if err := r.suspensions(ctx, name, f); err != nil {
		return err
	}
	return r.host.Destroy(ctx, name, true)
}

// snapshots measures ctctl and CRIU in turn, so that both see the same machine,
// with clients that are connected all the time.
func (r *rig) snapshots(ctx context.Context, name string, f *figures) (err error) {
	c, err := connect(ctx, endpoint())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if f.idle, err = c.during(func() error { time.Sleep(time.Second); return nil }); err != nil {
		return err
	}
	info, err := r.host.Containers.Get(ctx, name)
	if err != nil {
		return err
	}
	for i := range r.runs {
		if err := r.calm(); err != nil {
			return err
		}
		if err := r.snapshotOnce(ctx, name, "s"+strconv.Itoa(i), c, f); err != nil {
			return err
		}
		if err := r.dumpOnce(ctx, info, c, f); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) snapshotOnce(ctx context.Context, name, snap string, c clients, f *figures) error {
	var took time.Duration
	p, err := c.during(func() (err error) {
		var text string
		took, text, err = r.run(ctx, "snapshot", "create", name, snap)
		f.trace["snapshot create"].add(text)
		return err
	})
	if err != nil {
		return err
	}
	f.snapshot = append(f.snapshot, took)
	f.snapshotPauses.add(p)
	return r.host.Checkpoints.Delete(ctx, name, snap)
}

func (r *rig) dumpOnce(ctx context.Context, info container.Info, c clients, f *figures) error {
	images, err := r.imageDir("dump")
	if err != nil {
		return err
	}
	if err := r.calm(); err != nil {
		return err
	}
	p, err := c.during(func() error {
		took, st, err := r.rawDump(ctx, info, images)
		f.dump, f.dumpFrozen = append(f.dump, took), append(f.dumpFrozen, st.Frozen)
		return err
	})
	f.dumpPauses.add(p)
	if err != nil {
		return err
	}
	return statefile.RemoveTree(images) // as the snapshot's are: see dropSafety
}

func (r *rig) rollbacks(ctx context.Context, name string, f *figures) error {
	if _, _, err := r.run(ctx, "snapshot", "create", name, "base"); err != nil {
		return err
	}
	for range r.runs {
		if err := r.calm(); err != nil {
			return err
		}
		var took time.Duration
		gone, err := outage(endpoint(), func() (err error) {
			var text string
			took, text, err = r.run(ctx, "rollback", name, "base")
			f.trace["rollback"].add(text)
			return err
		})
		if err != nil {
			return err
		}
		f.rollback, f.rollbackOutage = append(f.rollback, took), append(f.rollbackOutage, gone)
		if err := r.dropSafety(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// dropSafety deletes the snapshots of what rollbacks gave up. CRIU's images are
// deleted too: memory that the page cache has used before is faster to write to
// than fresh memory, which in a virtual machine may not even be there yet.
func (r *rig) dropSafety(ctx context.Context, name string) error {
	all, _, err := r.host.Checkpoints.List(ctx, name)
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.Safety {
			if err := r.host.Checkpoints.Delete(ctx, name, s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// suspensions measures suspend and resume, with a client who is connected and
// silent meanwhile, and, while the container is suspended, CRIU alone restoring
// its last images.
func (r *rig) suspensions(ctx context.Context, name string, f *figures) error {
	c, err := dial(ctx, endpoint())
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := r.host.Containers.Get(ctx, name)
	if err != nil {
		return err
	}
	ext, err := r.external(info)
	if err != nil {
		return err
	}
	images, err := r.imageDir("restore")
	if err != nil {
		return err
	}
	if _, _, err := r.rawDump(ctx, info, images); err != nil {
		return err
	}
	for range r.runs {
		if err := r.suspendOnce(ctx, name, c, f, func() error {
			took, err := r.rawRestore(ctx, info, ext, images)
			f.restore = append(f.restore, took)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) suspendOnce(ctx context.Context, name string, c net.Conn, f *figures, between func() error) error {
	if err := r.calm(); err != nil {
		return err
	}
	took, text, err := r.run(ctx, "suspend", name)
	if err != nil {
		return err
	}
	f.trace["suspend"].add(text)
	f.suspend = append(f.suspend, took)
	if err := between(); err != nil {
		return fmt.Errorf("criu restore: %w", err)
	}
	began := time.Now()
	took, text, err = r.run(ctx, "resume", name)
	if err != nil {
		return err
	}
	if err := ping(c, pingTimeout); err != nil {
		return errors.Join(errors.New("the client's connection did not survive"), err)
	}
	f.resumeAnswer = append(f.resumeAnswer, time.Since(began))
	f.trace["resume"].add(text)
	f.resume = append(f.resume, took)
	return nil
}

// progress tells a person who waits what is being done.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"…\n", args...) }
