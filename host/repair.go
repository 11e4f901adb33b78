package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// Repair settles what was interrupted, of one container or, with no name, of the
// whole host, and says what it did. A container that is busy is not touched; its
// error is among those returned.
func (h *Host) Repair(ctx context.Context, name string) (done []string, err error) {
	if name != "" {
		return h.repairOne(ctx, name)
	}
	names, err := h.Containers.Names()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range names {
		d, err := h.repairOne(ctx, n)
		done, errs = append(done, d...), append(errs, err)
	}
	for _, f := range []func(context.Context) ([]string, error){h.Containers.Sweep, h.sweepTemplates, h.underLock(h.sweepVolumes), h.underLock(h.sweepImages)} {
		d, err := f(ctx)
		done, errs = append(done, d...), append(errs, err)
	}
	return done, errors.Join(errs...)
}

func (h *Host) repairOne(ctx context.Context, name string) (done []string, err error) {
	done, err = h.Containers.Repair(ctx, name)
	if err != nil {
		return done, err
	}
	removed, err := h.Checkpoints.Collect(ctx, name)
	for _, r := range removed {
		done = append(done, name+": removed the forgotten "+r)
	}
	if errors.Is(err, container.ErrNotFound) { // its create or destroy was interrupted
		err = nil
	}
	return done, err
}

func (h *Host) sweepTemplates(ctx context.Context) ([]string, error) {
	gone, err := h.Templates.Sweep(ctx)
	var done []string
	for _, g := range gone {
		done = append(done, "template "+g+": removed, it was half made")
	}
	return done, err
}

// underLock calls do with the uids of all containers. The host's lock keeps a
// container from being created meanwhile.
func (h *Host) underLock(do func(ctx context.Context, known map[string]bool) ([]string, error)) func(context.Context) ([]string, error) {
	return func(ctx context.Context) (done []string, err error) {
		lock, err := statefile.WaitLock(ctx, filepath.Join(h.Options.StateRoot, "host.lock"), "repair")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, lock.Unlock()) }()
		known, err := h.Containers.UIDs()
		if err != nil {
			return nil, err
		}
		return do(ctx, known)
	}
}

// sweepVolumes deletes the volumes of containers that are no more.
func (h *Host) sweepVolumes(ctx context.Context, known map[string]bool) (done []string, err error) {
	lister := storage.Lister(h.Volumes)
	all, err := lister.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		uid, ok := ownerOf(v.Name)
		if !ok || known[uid] {
			continue
		}
		if err := h.Volumes.Delete(ctx, v.Name); err != nil {
			return done, fmt.Errorf("repair: %w", err)
		}
		done = append(done, "volume "+v.Name+": deleted, its container is no more")
	}
	return done, nil
}

// ownerOf reads the container's uid from the name of one of its volumes:
// c-UID-N is a root, s-UID-TOKEN a snapshot.
func ownerOf(volume string) (uid string, ok bool) {
	kind, rest, ok := strings.Cut(volume, "-")
	if !ok || kind != "c" && kind != "s" {
		return "", false
	}
	uid, _, ok = strings.Cut(rest, "-")
	return uid, ok && len(uid) == 16
}

// sweepImages removes the images of containers that are no more.
func (h *Host) sweepImages(_ context.Context, known map[string]bool) (done []string, err error) {
	home := filepath.Join(h.Options.StateRoot, "snapshots")
	entries, err := os.ReadDir(home)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if len(e.Name()) != 16 || known[e.Name()] {
			continue
		}
		if err := statefile.RemoveTree(filepath.Join(home, e.Name())); err != nil {
			return done, err
		}
		done = append(done, "snapshots of "+e.Name()+": removed, their container is no more")
	}
	return done, nil
}
