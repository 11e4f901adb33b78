package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// rawDump lets CRIU alone dump a running container and leave it running, with the
// options that ctctl gives, except for the freezer: CRIU is faster at stopping a
// few processes than at waiting for a cgroup. It is asked over its RPC, because
// its command line can't dump a console whose other end is outside; nothing else
// is done while it works, so the time is that of its process.
func (r *rig) rawDump(ctx context.Context, info container.Info, images string) (whole time.Duration, st criu.DumpStats, err error) {
	if info.Run == nil {
		return 0, st, errors.New("the container does not run")
	}
	rt, err := runc.Load(filepath.Join(r.runRoot(), info.Config.UID, "runtime"), info.Config.UID)
	if err != nil {
		return 0, st, err
	}
	ext, err := rt.External()
	if err != nil {
		return 0, st, err
	}
	began := time.Now()
	st, err = r.host.CRIU.Dump(ctx, criu.DumpOptions{
		PID: info.Run.PID, Images: images, LeaveRunning: true, OwnNetNS: true, External: ext.Dump,
	})
	return time.Since(began), st, err
}

// rawRestore measures CRIU restoring images of a container that is suspended, and
// so takes no part: on its disk, with a network namespace that nobody fills. What
// it restored is ended again.
func (r *rig) rawRestore(ctx context.Context, info container.Info, ext []string, images string) (took time.Duration, err error) {
	if err := criu.MakeReadable(images); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() { // ends with its thread, and that ends its mount namespace
		defer close(done)
		runtime.LockOSThread()
		took, err = r.restoreHere(ctx, info, ext, images)
	}()
	<-done
	return took, err
}

func (r *rig) restoreHere(ctx context.Context, info container.Info, ext []string, images string) (took time.Duration, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return 0, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, err
	}
	root := filepath.Join(r.runRoot(), "raw")
	if err := runc.MountRoot(r.host.Volumes.Path(info.State.Volume), root, info.Config.IDs()); err != nil {
		return 0, err
	}
	g, err := quota.Open(info.Config.CgroupName())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	pid, _, err := r.host.CRIU.Restore(ctx, criu.RestoreOptions{
		Images: images, Root: root, TCPClose: true, OwnNetNS: true, External: ext, Sibling: true, Kill: func() error { return g.KillAll(ctx) },
	})
	took = time.Since(began)
	ctx = context.WithoutCancel(ctx)
	kerr := g.KillAll(ctx)
	if err == nil {
		_, werr := unix.Wait4(pid, nil, 0, nil)
		kerr = errors.Join(kerr, werr)
	}
	return took, errors.Join(err, kerr, g.Remove(ctx), unix.Unmount(root, unix.MNT_DETACH), os.Remove(root))
}

// external names what a restore of the container needs from outside.
func (r *rig) external(info container.Info) ([]string, error) {
	rt, err := runc.Load(filepath.Join(r.runRoot(), info.Config.UID, "runtime"), info.Config.UID)
	if err != nil {
		return nil, err
	}
	ext, err := rt.External()
	return ext.Restore, err
}

// imageDir makes an empty directory for images.
func (r *rig) imageDir(name string) (string, error) {
	dir := filepath.Join(r.scratch(), name)
	if err := statefile.RemoveTree(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o711)
}
