package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
)

// Steps of an intent. From ending on, the image is durable and the way is forward.
// Running and returned are written by a launch's commit: what was restored counts
// from then on, and the image it came from no more, because its processes may
// have acknowledged something.
const (
	stepDumping   = "dumping"
	stepEnding    = container.StepEnding
	stepReverting = "reverting" // bringing up the snapshot
	stepStarting  = "starting"  // starting one anew from the snapshot's files, which it may have written to
	stepRunning   = "running"   // it runs
	stepReturning = "returning" // bringing back what was before a rollback
	stepReturned  = "returned"  // it runs
)

// committer makes a step durable when a launch asks.
func committer(l *container.Locked, step string) func() error {
	return func() error {
		before := l.State.Intent.Step
		l.State.Intent.Step = step
		err := l.SaveState()
		if err != nil { // the file may have the new step all the same
			l.State.Intent.Step = before
			err = errors.Join(err, l.SaveState())
		}
		return err
	}
}

// Suspend writes a container's processes to disk and ends them; Resume brings
// them back, with their connections. Errors: as Snapshot.
func (m *Manager) Suspend(ctx context.Context, name string) error {
	return m.with(ctx, "suspend", name, func(l *container.Locked) error {
		if _, _, err := l.Require("suspend", container.Running, container.Paused); err != nil {
			return err
		}
		return m.suspend(ctx, l)
	})
}

func (m *Manager) suspend(ctx context.Context, l *container.Locked) error {
	image := suspendPrefix + token()
	status, _, err := l.Status()
	if err != nil {
		return err
	}
	paused := status == container.Paused
	if err := l.Begin(container.Intent{Op: "suspend", Step: stepDumping, Snapshot: image, WasUp: true, Paused: paused}); err != nil {
		return err
	}
	sink, err := m.sink(l.Config.UID, image)
	if err != nil {
		return errors.Join(err, l.Finish())
	}
	c := &cut{m: m, l: l, dir: sink.Dir(), hold: true, paused: paused, spare: "s-" + l.Config.UID + "-" + token()}
	mf := m.newManifest(l, image, container.Running)
	if err := c.take(ctx, &mf); err != nil {
		return errors.Join(giveUp(l, err), sink.Abort())
	}
	mf.Volume = c.volume
	start := time.Now()
	err = publish(sink, mf)
	if err == nil {
		l.State.Suspended = image
		l.State.Intent.Step = stepEnding
		err = l.SaveState()
	}
	if err != nil {
		l.State.Suspended = ""
		if aerr := m.abandon(context.WithoutCancel(ctx), l, stepDumping); aerr != nil {
			return errors.Join(err, aerr)
		}
		return errors.Join(err, c.discard(ctx), statefile.RemoveTree(m.dir(l.Config.UID, image)), sink.Abort())
	}
	m.trace("publish", start)
	if err := l.End(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	return l.Finish()
}

// Resume brings a suspended container back. If it can't be, the image stays and
// Resume can be tried again. Errors: ErrDamaged, ErrForeign, RestoreError.
func (m *Manager) Resume(ctx context.Context, name string) error {
	return m.with(ctx, "resume", name, func(l *container.Locked) error {
		if _, _, err := l.Require("resume", container.Suspended); err != nil {
			return err
		}
		return m.resume(ctx, l)
	})
}

func (m *Manager) resume(ctx context.Context, l *container.Locked) error {
	start := time.Now()
	mf, err := verify(ctx, m.dir(l.Config.UID, l.State.Suspended))
	if err != nil {
		return err
	}
	m.trace("verify", start)
	if err := m.fits(ctx, mf, l.Config); err != nil {
		return err
	}
	if err := needsOf(mf).Check(l.Effective().Limits); err != nil {
		return err
	}
	if err := l.Begin(container.Intent{Op: "resume", Snapshot: mf.Name, WasUp: true}); err != nil {
		return err
	}
	if mf.Volume != "" {
		if err := m.renew(ctx, l, mf.Volume); err != nil {
			return errors.Join(err, l.Finish())
		}
	}
	err = l.Launch(ctx, container.LaunchOptions{Image: m.image(mf, false), Commit: committer(l, stepRunning), CommitStep: stepRunning})
	switch {
	case err == nil:
		return m.resumed(ctx, l)
	case l.State.Intent.Step == stepRunning: // it ran, and has ended since
		return errors.Join(&RestoreError{Now: container.Stopped, Err: err}, m.resumed(ctx, l))
	}
	return errors.Join(&RestoreError{Now: container.Suspended, Err: err}, l.Finish())
}

// resumed drops the image; the running processes are the container.
func (m *Manager) resumed(ctx context.Context, l *container.Locked) error {
	err := m.dropImage(ctx, l, l.State.Suspended)
	l.State.Suspended = ""
	return errors.Join(err, m.quiet(ctx, l), l.Finish())
}

// quiet removes what the network keeps for a container that comes back, of one that
// has ended meanwhile.
func (m *Manager) quiet(ctx context.Context, l *container.Locked) error {
	_, run, err := l.Status()
	if err != nil || run.Alive() {
		return err
	}
	return l.Detach(ctx)
}

func (m *Manager) image(mf Manifest, tcpClose bool) *container.Image {
	return &container.Image{
		Name: mf.Name, Dir: filepath.Join(m.dir(mf.UID, mf.Name), imagesDir), Runtime: mf.Runtime, TCPClose: tcpClose,
	}
}

// Needs says what a suspended container needs to come back; nothing is known of an
// image that can't be read. It is for container.Manager.Needs.
func (m *Manager) Needs(l *container.Locked) (container.Needs, error) {
	mf, err := readManifest(m.dir(l.Config.UID, l.State.Suspended))
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return container.Needs{}, nil
	}
	return needsOf(mf), err
}

// needsOf counts pages, which are written as they are, and tasks, of which each has
// a file.
func needsOf(mf Manifest) (n container.Needs) {
	for _, f := range mf.Files {
		switch {
		case strings.HasPrefix(f.Name, "pages-"):
			n.MemoryBytes += f.Bytes
		case strings.HasPrefix(f.Name, "core-"):
			n.Tasks++
		}
	}
	return n
}

// fits refuses an image this machine can't restore.
func (m *Manager) fits(ctx context.Context, mf Manifest, now container.Config) error {
	v, err := m.CRIU.Version(ctx)
	if err != nil {
		return err
	}
	older, err := olderCRIU(v, mf.CRIU)
	if err != nil {
		return err
	}
	if older {
		return fmt.Errorf("%w: it was made by CRIU %s, here is %s", ErrForeign, mf.CRIU, v)
	}
	start := time.Now()
	defer func() { m.trace("rights", start) }()
	return checkRights(filepath.Join(m.dir(mf.UID, mf.Name), imagesDir), mf.Config, now)
}

// Forget gives up what a suspended container's processes were and makes it a
// stopped one, with its files as they were at the suspend: the way out when its
// image can't be restored. Nothing brings the image back.
func (m *Manager) Forget(ctx context.Context, name string) error {
	return m.with(ctx, "forget the memory of", name, func(l *container.Locked) error {
		if _, _, err := l.Require("giving up its memory", container.Suspended); err != nil {
			return err
		}
		image := l.State.Suspended
		l.State.Suspended = ""
		if err := l.SaveState(); err != nil {
			return err
		}
		return errors.Join(m.dropImage(ctx, l, image), l.Detach(ctx))
	})
}
