package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// Rolled says what a rollback did.
type Rolled struct {
	Safety string           // the snapshot of the state before; roll back to it to undo
	Status container.Status // of the container now
}

// keepSafety is how many safety snapshots of a container are kept.
const keepSafety = 3

// Rollback makes a container be as one of its snapshots, processes and memory
// included. What it was before becomes a safety snapshot. If the snapshot can't
// be restored the container is brought back from that, and the error is a
// RestoreError. Errors also: ErrNotFound, ErrDamaged, ErrForeign, ErrNoRoom, DumpError.
func (m *Manager) Rollback(ctx context.Context, name, snap string) (r Rolled, err error) {
	err = m.with(ctx, "rollback", name, func(l *container.Locked) error {
		if err := CheckName(snap); err != nil {
			return err
		}
		start := time.Now()
		mf, err := verify(ctx, m.dir(l.Config.UID, snap))
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", snap, err)
		}
		m.trace("verify", start)
		if _, err := os.Lstat(l.Volumes().Path(mf.Volume)); err != nil {
			return fmt.Errorf("snapshot %s: %w: its files are missing: %w", snap, ErrDamaged, err)
		}
		if mf.Memory {
			if err := m.fits(ctx, mf, l.Config); err != nil {
				return err
			}
		}
		if err := checkDisk(ctx, l, mf); err != nil {
			return err
		}
		r, err = m.rollback(ctx, l, mf)
		return err
	})
	return r, err
}

// checkDisk refuses a snapshot whose disk limit is below what is in use, which the
// safety snapshot keeps in use: every write of what comes back would fail.
func checkDisk(ctx context.Context, l *container.Locked, mf Manifest) error {
	limit := mf.Config.Limits.DiskBytes
	if limit == l.Config.Limits.DiskBytes {
		return nil
	}
	used, err := l.DiskBytes(ctx, limit)
	if err == nil && limit > 0 && used > limit {
		err = fmt.Errorf("%w: with snapshot %s comes its disk limit of %s, and %d MiB are in use, snapshots included; delete snapshots or files",
			quota.ErrBelowUsage, mf.Name, quota.FormatBytes(limit), used>>20)
	}
	return err
}

func (m *Manager) rollback(ctx context.Context, l *container.Locked, mf Manifest) (r Rolled, err error) {
	status, _, err := l.Status()
	if err != nil {
		return r, err
	}
	up := status == container.Running || status == container.Paused
	r.Safety = "before-" + time.Now().UTC().Format("20060102-150405.000")
	in := container.Intent{Op: "rollback", Step: stepDumping, Snapshot: mf.Name, Safety: r.Safety, WasUp: up, Paused: status == container.Paused}
	if err := l.BeginAs(ctx, in, mf.Config, overlayOf(mf)); err != nil {
		return r, err
	}
	if _, err := m.snapshot(ctx, l, SnapshotOptions{Name: r.Safety, Message: "before the rollback to " + mf.Name}, true); err != nil {
		return r, giveUp(l, fmt.Errorf("safety snapshot: %w", err))
	}
	// The state before is durable. Nothing stops what follows half way.
	ctx = context.WithoutCancel(ctx)
	l.State.Intent.Step = stepEnding
	l.State.Intent.Volume = container.VolumeName(l.Config.UID, l.State.Generation+1)
	if err := l.SaveState(); err != nil {
		return r, errors.Join(err, m.abandon(ctx, l, stepDumping))
	}
	err = m.goBack(ctx, l, mf)
	if err != nil && !committed(l) {
		r.Status, err = m.goForward(ctx, l, err)
		return r, err
	}
	if err != nil {
		return r, err
	}
	m.pruneSafety(ctx, l)
	r.Status, _, err = l.Status()
	return r, err
}

// goBack ends the container as it is and brings up the snapshot.
func (m *Manager) goBack(ctx context.Context, l *container.Locked, mf Manifest) error {
	if err := l.End(ctx); err != nil {
		return err
	}
	in := l.State.Intent
	in.Step = stepReverting
	if err := l.SaveState(); err != nil {
		return err
	}
	start := time.Now()
	// One that an interrupted rollback left may have been written to.
	if err := l.Volumes().Delete(ctx, in.Volume); err != nil {
		return err
	}
	err := l.Volumes().Create(ctx, in.Volume, storage.CreateOptions{Origin: mf.Volume, Group: uint64(l.Config.CTID)})
	if err != nil {
		return fmt.Errorf("revert the root volume: %w", err)
	}
	m.trace("revert", start)
	now, overlay := l.Config, l.State.Overlay
	next := *l
	become(&next, mf)
	if !slices.Equal(l.Effective().Network.Addresses(), next.Effective().Network.Addresses()) {
		if err := l.Detach(ctx); err != nil { // nobody answers at these any more
			return err
		}
	}
	become(l, mf)
	err = m.launch(ctx, l, mf, in.Volume)
	if err != nil && !committed(l) {
		l.Config, l.State.Overlay = now, overlay
		return err
	}
	if err != nil { // it ran, and has ended since
		err = &RestoreError{Now: container.Stopped, Err: err}
	}
	return errors.Join(err, m.commitRollback(ctx, l, mf))
}

// committed says that a rollback has come so far that there is no way back.
func committed(l *container.Locked) bool {
	return l.State.Intent == nil || l.State.Intent.Step == stepRunning
}

// launch restores processes, or starts anew what has none but ran before.
func (m *Manager) launch(ctx context.Context, l *container.Locked, mf Manifest, volume string) error {
	switch {
	case mf.Memory:
		return l.Launch(ctx, container.LaunchOptions{Image: m.image(mf, true), Volume: volume, Commit: committer(l, stepRunning), CommitStep: stepRunning})
	case l.State.Intent.WasUp && mf.Status != container.Stopped:
		// From here on its files may have what somebody was told is there.
		l.State.Intent.Step = stepStarting
		if err := l.SaveState(); err != nil {
			return err
		}
		return l.Launch(ctx, container.LaunchOptions{Volume: volume})
	}
	return l.Detach(ctx) // it stays down: nobody needs to be kept waiting
}

// abandon goes back to an earlier step after the next one could not be made
// durable, and lets the container go on. If that can't be made durable either
// nothing is known of what a power cut would find: then the container stays as it
// is, frozen, for repair to settle.
func (m *Manager) abandon(ctx context.Context, l *container.Locked, step string) error {
	l.State.Intent.Step = step
	if err := l.SaveState(); err != nil {
		return err
	}
	if err := l.Release(ctx, l.State.Intent.Paused); err != nil {
		return err
	}
	return l.Finish()
}

// giveUp forgets the intent of an operation that failed, unless something of it
// is left on the container: that is settled from the intent.
func giveUp(l *container.Locked, err error) error {
	if errors.Is(err, container.ErrUndo) {
		return err
	}
	return errors.Join(err, l.Finish())
}

// become gives a container a snapshot's configuration, with what was changed for
// that run only if its processes come back, but for what never goes back.
func become(l *container.Locked, mf Manifest) {
	now := l.Config
	l.Config = mf.Config
	l.Config.Name, l.Config.UID, l.Config.CTID, l.Config.Created = now.Name, now.UID, now.CTID, now.Created
	l.State.Overlay = overlayOf(mf)
}

// overlayOf is what was changed for that run only, if its processes come back.
func overlayOf(mf Manifest) []container.Layer {
	if mf.Memory {
		return mf.Overlay
	}
	return nil
}

// commitRollback makes the snapshot's volume and configuration the container's.
// It can be done again after it was interrupted.
func (m *Manager) commitRollback(ctx context.Context, l *container.Locked, mf Manifest) error {
	become(l, mf)
	if err := l.SaveConfig(); err != nil {
		return err
	}
	in := l.State.Intent
	in.Step = stepRunning
	if l.State.Volume != in.Volume {
		l.State.Volume = in.Volume
		l.State.Generation++
	}
	l.State.Current, l.State.Suspended = mf.Name, ""
	if err := l.SaveState(); err != nil {
		return err
	}
	_, err := m.collect(ctx, l) // the volume and the image of what was before
	return errors.Join(l.SetDiskLimit(ctx), err, m.quiet(ctx, l), l.Finish())
}

// goForward brings the container back to the safety snapshot after a rollback
// that did not work because of cause.
func (m *Manager) goForward(ctx context.Context, l *container.Locked, cause error) (container.Status, error) {
	cause = errors.Join(cause, m.comeBack(ctx, l))
	now, _, err := l.Status()
	return now, &RestoreError{Now: now, Err: errors.Join(cause, err)}
}

// comeBack restores the safety snapshot; its volume was not touched since.
func (m *Manager) comeBack(ctx context.Context, l *container.Locked) error {
	in := l.State.Intent
	in.Step = stepReturning
	errs := []error{m.reclaim(l), l.SaveState()}
	if err := l.Volumes().Delete(ctx, in.Volume); err != nil {
		errs = append(errs, fmt.Errorf("%w: %w", container.ErrUndo, err))
	}
	if in.WasUp {
		safety, err := verify(ctx, m.dir(l.Config.UID, in.Safety))
		if err == nil {
			err = m.relaunch(ctx, l, safety)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the state before could not be restored either: %w", err))
		}
		if err != nil && in.Step != stepReturned {
			// The complete image stays: the container counts as suspended in it.
			if l.State.Suspended, err = m.keepAsSuspended(ctx, l, in.Safety); err != nil {
				return errors.Join(append(errs, err)...) // the next command tries again
			}
		}
	}
	return errors.Join(append(errs, l.Finish())...)
}

// reclaim gives the container the configuration back that it had before a rollback: a
// commit that was interrupted may have written the snapshot's.
func (m *Manager) reclaim(l *container.Locked) error {
	safety, err := readManifest(m.dir(l.Config.UID, l.State.Intent.Safety))
	if err != nil {
		return fmt.Errorf("safety snapshot %s: %w", l.State.Intent.Safety, err)
	}
	become(l, safety)
	return l.SaveConfig()
}

// relaunch restores a safety snapshot's processes on the volume they had, unless
// they need names that only the storage snapshot has.
func (m *Manager) relaunch(ctx context.Context, l *container.Locked, safety Manifest) error {
	has, err := criu.HasLinks(filepath.Join(m.dir(safety.UID, safety.Name), imagesDir))
	if err != nil {
		return err
	}
	if has {
		if err := m.renew(ctx, l, safety.Volume); err != nil {
			return err
		}
	}
	err = l.Launch(ctx, container.LaunchOptions{Image: m.image(safety, false), Commit: committer(l, stepReturned), CommitStep: stepReturned})
	if err != nil || !l.State.Intent.Paused {
		return err
	}
	g, err := l.Group()
	if err != nil {
		return err
	}
	return g.Freeze(ctx)
}

// keepAsSuspended turns a safety snapshot into the image a suspended container
// resumes from, with a storage snapshot of its own where it needs one.
func (m *Manager) keepAsSuspended(ctx context.Context, l *container.Locked, safety string) (string, error) {
	name := suspendPrefix + token()
	mf, err := readManifest(m.dir(l.Config.UID, safety))
	has := false
	if err == nil {
		has, err = criu.HasLinks(filepath.Join(m.dir(l.Config.UID, safety), imagesDir))
	}
	volume := ""
	if err == nil && has {
		volume = "s-" + l.Config.UID + "-" + token()
		err = l.Volumes().Snapshot(ctx, mf.Volume, volume, uint64(l.Config.CTID))
	}
	if err == nil {
		err = linkImage(m.dir(l.Config.UID, safety), m.dir(l.Config.UID, name), name, volume)
	}
	if err != nil {
		return "", err
	}
	return name, nil
}

// pruneSafety deletes the oldest safety snapshots; that it could not is no
// reason to call the rollback failed.
func (m *Manager) pruneSafety(ctx context.Context, l *container.Locked) {
	all, err := m.list(l.Config.UID) // what can be read
	if err != nil {
		m.log().Warn("list snapshots", "container", l.Config.Name, "err", err)
	}
	var safety []string
	for _, s := range all {
		if s.Safety && s.Name != l.State.Current {
			safety = append(safety, s.Name)
		}
	}
	for ; len(safety) > keepSafety; safety = safety[1:] {
		if err := m.delete(ctx, l, safety[0]); err != nil {
			m.log().Warn("delete a safety snapshot", "container", l.Config.Name, "snapshot", safety[0], "err", err)
		}
	}
}

// olderCRIU compares versions "4.2.1".
func olderCRIU(here criu.Version, there string) (bool, error) {
	var v criu.Version
	if n, _ := fmt.Sscanf(there+".0", "%d.%d.%d", &v.Major, &v.Minor, &v.Sublevel); n < 2 {
		return false, fmt.Errorf("%w: CRIU version %q", ErrDamaged, there)
	}
	return here.Less(v), nil
}
