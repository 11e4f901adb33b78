package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
)

// writeNetwork puts what was configured inside beside the images.
func (c *cut) writeNetwork(images string) error {
	if missing := c.inner.Missing; len(missing) > 0 {
		c.m.log().Warn("of the network configured inside these do not come back", "container", c.l.Config.Name, "missing", missing)
	}
	if c.inner.Empty() {
		return nil
	}
	b, err := json.Marshal(c.inner)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, container.NetworkFile), b, 0o600)
}

func (c *cut) seal(ctx context.Context, mf *Manifest) error {
	start := time.Now()
	defer func() { c.m.trace("digests", start) }()
	images := filepath.Join(c.dir, imagesDir)
	if err := criu.RearmTimers(images); err != nil {
		return err
	}
	if err := c.fix(ctx, images); err != nil {
		return err
	}
	if err := errors.Join(c.writeNetwork(images), container.WriteCgroups(images, c.tree)); err != nil {
		return err
	}
	if err := criu.MakeReadable(images); err != nil {
		return err
	}
	return mf.seal(context.WithoutCancel(ctx), c.dir)
}

// fix rewrites what CRIU saves in a way that it can't restore from.
func (c *cut) fix(ctx context.Context, images string) error {
	v, err := c.m.CRIU.Version(ctx)
	if err != nil {
		return err
	}
	o := criu.FixOptions{Root: c.l.Volumes().Path(c.l.State.Volume), Version: v}
	if c.volume != "" {
		o.Snapshot = c.l.Volumes().Path(c.volume)
	}
	fixes, err := criu.FixImages(context.WithoutCancel(ctx), images, o)
	for _, f := range fixes {
		if f.Kind == criu.FixWatchUnresolved {
			c.m.log().Warn("a watch may not be restored", "container", c.l.Config.Name, "watch", f.Detail)
			continue
		}
		c.m.log().Debug("fixed the image", "container", c.l.Config.Name, "fix", f.String())
	}
	return err
}
