package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/undo"
	"golang.org/x/sys/unix"
)

// SnapshotOptions says what a snapshot holds.
type SnapshotOptions struct {
	Name     string // "": made from the time
	Message  string
	DiskOnly bool // leave the processes out
}

// Snapshot takes one. The container's processes stand still while memory is
// read, not longer. Errors: ErrExists, ErrName, ErrNoRoom, DumpError.
func (m *Manager) Snapshot(ctx context.Context, name string, o SnapshotOptions) (mf Manifest, err error) {
	err = m.with(ctx, "snapshot", name, func(l *container.Locked) error {
		if o.Name == "" {
			o.Name = time.Now().UTC().Format("20060102-150405")
		}
		if err := CheckName(o.Name); err != nil {
			return err
		}
		if err := m.vacant(l.Config.UID, o.Name); err != nil {
			return err
		}
		status, _, err := l.Status()
		if err != nil {
			return err
		}
		if err := l.Begin(container.Intent{Op: "snapshot", Snapshot: o.Name, Paused: status == container.Paused}); err != nil {
			return err
		}
		mf, err = m.snapshot(ctx, l, o, false)
		if err == nil {
			l.State.Current = o.Name
		}
		return giveUp(l, err)
	})
	return mf, err
}

func (m *Manager) vacant(uid, snap string) error {
	_, err := os.Lstat(m.dir(uid, snap))
	if err == nil {
		return fmt.Errorf("%s: %w", snap, ErrExists)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// snapshot makes and publishes a snapshot of the container as it is. With hold
// a running container stays frozen and unplugged; the caller ends it or lets it go.
func (m *Manager) snapshot(ctx context.Context, l *container.Locked, o SnapshotOptions, hold bool) (mf Manifest, err error) {
	status, _, err := l.Status()
	if err != nil {
		return mf, err
	}
	mf = m.newManifest(l, o.Name, status)
	mf.Message, mf.Volume, mf.Safety = o.Message, "s-"+l.Config.UID+"-"+token(), hold
	sink, err := m.sink(l.Config.UID, o.Name)
	if err != nil {
		return mf, err
	}
	var undos undo.Stack
	undos.Push("remove the partial image", func(context.Context) error { return sink.Abort() })
	defer func() {
		if err != nil {
			if uerr := undos.Unwind(ctx); uerr != nil {
				err = errors.Join(err, fmt.Errorf("%w: %w", container.ErrUndo, uerr))
			}
		}
	}()
	undos.Push("delete the storage snapshot", func(ctx context.Context) error { return l.Volumes().Delete(ctx, mf.Volume) })
	c := &cut{m: m, l: l, dir: sink.Dir(), hold: hold, volume: mf.Volume, paused: status == container.Paused}
	if err = m.fill(ctx, c, &mf, o.DiskOnly); err != nil {
		return mf, err
	}
	if hold && mf.Memory {
		undos.Push("let the container go on", c.letGo)
	}
	start := time.Now()
	if err = publish(sink, mf); err != nil {
		return mf, err
	}
	m.trace("publish", start)
	undos.Drop()
	return mf, nil
}

// fill puts into the image what the container's status calls for.
func (m *Manager) fill(ctx context.Context, c *cut, mf *Manifest, diskOnly bool) error {
	up := mf.Status == container.Running || mf.Status == container.Paused
	switch {
	case up && !diskOnly:
		return c.take(ctx, mf)
	case up:
		return c.diskOnly(ctx)
	case mf.Status == container.Suspended && !diskOnly:
		return m.copySuspended(ctx, c, mf)
	}
	return c.l.Volumes().Snapshot(ctx, c.l.State.Volume, c.volume, uint64(c.l.Config.CTID))
}

// diskOnly is what a power cut would leave, no less and no more.
func (c *cut) diskOnly(ctx context.Context) (err error) {
	if c.group, err = c.l.Group(); err != nil {
		return err
	}
	if err := c.flush(ctx); err != nil {
		return err
	}
	if _, err := c.freeze(ctx); err != nil {
		return err
	}
	err = c.l.Volumes().Snapshot(ctx, c.l.State.Volume, c.volume, uint64(c.l.Config.CTID))
	return errors.Join(err, c.letGo(context.WithoutCancel(ctx)))
}

// copySuspended makes a snapshot from the image a suspended container waits in;
// the image files are shared by hard links.
func (m *Manager) copySuspended(ctx context.Context, c *cut, mf *Manifest) error {
	from := m.dir(c.l.Config.UID, c.l.State.Suspended)
	src, err := verify(ctx, from)
	if err != nil {
		return err
	}
	if err := linkFiles(filepath.Join(from, imagesDir), filepath.Join(c.dir, imagesDir), src.Files); err != nil {
		return err
	}
	mf.Memory, mf.Runtime, mf.Files = true, src.Runtime, src.Files
	mf.Kernel, mf.CRIU, mf.Pages = src.Kernel, src.CRIU, src.Pages
	disk := c.l.State.Volume
	if src.Volume != "" {
		disk = src.Volume
	}
	return c.l.Volumes().Snapshot(ctx, disk, c.volume, uint64(c.l.Config.CTID))
}

func (m *Manager) newManifest(l *container.Locked, name string, s container.Status) Manifest {
	return Manifest{
		Name: name, UID: l.Config.UID, Created: time.Now().UTC(), Parent: l.State.Current, Status: s, Config: l.Config, Overlay: l.State.Overlay,
	}
}

// sink makes the directory of an image that is being made.
func (m *Manager) sink(uid, name string) (*statefile.Sink, error) {
	// 0700: the files of an image must be readable by a container's root while it
	// is restored, but by nobody on the host.
	if err := os.MkdirAll(m.home(uid), 0o700); err != nil {
		return nil, err
	}
	return statefile.NewSink(m.dir(uid, name), 0o700)
}

func publish(sink *statefile.Sink, mf Manifest) error {
	if err := manifestSchema.Write(filepath.Join(sink.Dir(), "manifest.json"), &mf); err != nil {
		return err
	}
	err := sink.Commit()
	if errors.Is(err, unix.EEXIST) {
		return ErrExists
	}
	return err
}

// linkImage makes an image under another name, with another storage snapshot,
// that shares the files of from.
func linkImage(from, to, name, volume string) (err error) {
	mf, err := readManifest(from)
	if err != nil {
		return err
	}
	sink, err := statefile.NewSink(to, 0o700)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Abort()) }()
	if err := linkFiles(filepath.Join(from, imagesDir), filepath.Join(sink.Dir(), imagesDir), mf.Files); err != nil {
		return err
	}
	mf.Name, mf.Volume, mf.Safety = name, volume, false
	return publish(sink, mf)
}

func linkFiles(from, to string, files []File) error {
	if err := os.Mkdir(to, 0o711); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Link(filepath.Join(from, f.Name), filepath.Join(to, f.Name)); err != nil {
			return err
		}
	}
	return os.Chmod(to, 0o711) // whatever the umask
}
