package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

const (
	defaultDeadline = 60 * time.Second
	roomMargin      = 10 // percent above the estimate
)

// cut is one taking of memory and disk at the same instant.
type cut struct {
	m        *Manager
	l        *container.Locked
	dir      string // the image directory being made
	hold     bool   // keep the container frozen and unplugged afterwards
	volume   string // the storage snapshot to make; "" for none
	spare    string // the one to make where the image needs names that only it has
	group    quota.Group
	silenced bool
	paused   bool // it was before
	// skipInFlight gives connections up that nobody has accepted yet: under a
	// stream of new ones there is always one, and its client tries again.
	skipInFlight bool
	// network records what was configured inside the network namespace, which is in
	// no image.
	network *netns.Recorder
	inner   netns.Inner
	tree    quota.Tree // what the container has made of its own cgroup
}

// take dumps the container's processes into c.dir and fills in the manifest. On
// an error the container goes on as if nothing had happened.
func (c *cut) take(ctx context.Context, mf *Manifest) (err error) {
	if c.group, err = c.l.Group(); err != nil {
		return err
	}
	if err := errors.Join(c.checkRoom(), c.group.CheckTree()); err != nil {
		return err
	}
	if err := c.preflight(ctx); err != nil {
		return err
	}
	if err := c.describe(ctx, mf); err != nil {
		return err
	}
	if c.hold {
		if err := c.warnSessions(); err != nil {
			return err
		}
	}
	return c.tryAgain(ctx, mf)
}

// checkRoom refuses before anything is frozen.
func (c *cut) checkRoom() error {
	need, err := c.l.MemoryBytes()
	if err != nil {
		return err
	}
	need += need/100*roomMargin + 8<<20
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(c.dir), &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%w: about %s needed, %s free in %s", ErrNoRoom, quota.FormatBytes(need), quota.FormatBytes(free), filepath.Dir(c.dir))
	}
	if g, ok := c.l.Volumes().(storage.Gauge); ok {
		room, err := g.Capacity(context.Background())
		if err != nil {
			return err
		}
		return storage.CheckRoom(room, 0)
	}
	return nil
}

// warnSessions names what a hold will end for good: commands run by exec are
// children of who ran them and are in no image.
func (c *cut) warnSessions() error {
	pids, err := c.l.ExecSessions()
	if err == nil && len(pids) > 0 {
		c.m.log().Warn("commands run by exec end with this and do not come back", "container", c.l.Config.Name, "pids", pids)
	}
	return err
}

func (c *cut) describe(ctx context.Context, mf *Manifest) error {
	rt, err := c.l.Runtime()
	if err != nil {
		return err
	}
	if mf.Runtime, err = rt.Config(); err != nil {
		return err
	}
	v, err := c.m.CRIU.Version(ctx)
	if err != nil {
		return err
	}
	// CRIU probes the kernel for 40 to 90 ms at every start unless it finds the
	// results of an earlier probe: not while the container stands still.
	if err := c.m.CRIU.EnsureKdat(ctx, ""); err != nil {
		c.m.log().Warn("no kernel feature cache for CRIU, it will be slower", "err", err)
	}
	mf.Memory, mf.CRIU, mf.Kernel = true, v.String(), kernelRelease()
	return nil
}

// once tries to dump. The clock of the frozen time starts at the freeze.
func (c *cut) once(ctx context.Context, mf *Manifest) error {
	images := filepath.Join(c.dir, imagesDir)
	if err := freshDir(images); err != nil {
		return err
	}
	rt, err := c.l.Runtime()
	if err != nil {
		return err
	}
	pid, err := rt.PID()
	if err != nil {
		return err
	}
	ext, err := rt.External()
	if err != nil {
		return err
	}
	if c.network, err = c.l.RecordNetwork(ctx, pid); err != nil {
		return err
	}
	defer func() { // no reason to call a dump failed
		if err := c.network.Close(); err != nil {
			c.m.log().Warn("close the recorder of the network", "container", c.l.Config.Name, "err", err)
		}
	}()
	if err := c.flush(ctx); err != nil {
		return err
	}
	deadline := c.m.Deadline
	if deadline == 0 {
		deadline = defaultDeadline
	}
	undo := func() error { return c.l.Release(context.WithoutCancel(ctx), c.paused) }
	var frozen time.Time
	stats, err := c.m.CRIU.Dump(ctx, criu.DumpOptions{
		PID: pid, Root: c.l.Rootfs(), Images: images, FreezeCgroup: c.freezeDir(), LeaveRunning: true, OwnNetNS: true, SkipInFlight: c.skipInFlight,
		External: ext.Dump, Deadline: deadline, Thaw: c.group.Thaw, PIDs: c.group.PIDs, Notify: c.notify(mf),
		Freeze: func(ctx context.Context) (err error) {
			frozen, err = c.freeze(ctx)
			return err
		},
	})
	c.m.trace("criu dump", frozen)
	if err != nil {
		return errors.Join(err, c.discard(ctx), undo())
	}
	if !c.hold {
		if err := c.letGo(ctx); err != nil {
			return errors.Join(err, undo())
		}
	}
	mf.Frozen, mf.Pages = time.Since(frozen), stats.PagesWritten
	c.m.trace("frozen", frozen)
	if err := c.seal(ctx, mf); err != nil {
		return errors.Join(err, c.discard(ctx), undo())
	}
	return nil
}

// flush makes the root volume durable, so that little is left to write while the
// container stands still.
func (c *cut) flush(ctx context.Context) error {
	defer c.m.trace("flush", time.Now())
	f, ok := c.l.Volumes().(storage.Flusher)
	if !ok {
		return nil
	}
	if err := f.Flush(ctx, c.l.State.Volume); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// freezeDir is the freezer that Freeze uses: cgroup2's where there is one.
func (c *cut) freezeDir() string {
	if dir := c.group.Unified(); dir != "" {
		return dir
	}
	return c.group.Dirs()["freezer"]
}

func freshDir(dir string) error {
	if err := statefile.RemoveTree(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o711)
}

// freeze stops the container, unless it is paused already.
func (c *cut) freeze(ctx context.Context) (time.Time, error) {
	start := time.Now()
	defer c.m.trace("freeze", start)
	fctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return start, c.group.Freeze(fctx)
}

func (c *cut) notify(mf *Manifest) criu.Notify {
	return func(ctx context.Context, ev criu.Event) (err error) {
		start := time.Now()
		switch ev.Script {
		case criu.EventNetworkLock:
			if !c.hold {
				return nil
			}
			c.silenced = true
			defer c.m.trace("unplug", start)
			return c.l.Silence(ctx)
		case criu.EventPostDump:
			// The tasks are stopped and CRIU's own files (names it gave to deleted
			// files) are still there: the one moment at which disk and memory agree.
			if c.tree, err = c.group.Tree(c.l.Config.CgroupIDs()); err != nil {
				return err
			}
			if c.inner, err = c.network.Capture(ctx); err != nil {
				return fmt.Errorf("record what was configured inside: %w", err)
			}
			c.m.trace("record", start)
			if err := c.wantLinks(); err != nil {
				return err
			}
			if c.volume == "" {
				// Nothing else makes durable what the processes wrote.
				return c.flush(ctx)
			}
			defer c.m.trace("storage snapshot", start)
			return c.l.Volumes().Snapshot(ctx, c.l.State.Volume, c.volume, uint64(c.l.Config.CTID))
		}
		return nil
	}
}

// wantLinks decides whether an image without a storage snapshot needs one.
func (c *cut) wantLinks() error {
	if c.spare == "" {
		return nil
	}
	has, err := criu.HasLinks(filepath.Join(c.dir, imagesDir))
	if has {
		c.volume = c.spare
	}
	return err
}

// letGo ends what this cut did to the container: it goes on, unless it was
// paused before.
func (c *cut) letGo(ctx context.Context) error {
	var err error
	if c.silenced {
		err = c.l.Rejoin(ctx)
		c.silenced = false
	}
	if c.paused {
		return err
	}
	return errors.Join(err, c.group.Thaw())
}

// discard removes the storage snapshot of a failed try.
func (c *cut) discard(ctx context.Context) error {
	if c.volume == "" {
		return nil
	}
	return c.l.Volumes().Delete(context.WithoutCancel(ctx), c.volume)
}
