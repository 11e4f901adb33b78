package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// RestoreOptions say what to restore and into what. Images is required.
type RestoreOptions struct {
	// Images is the directory of the image files. The root of the tree's
	// user namespace must be able to read them, see [MakeReadable].
	Images string
	// Work is the directory for restore.log and the statistics; "" for
	// Images.
	Work string
	// Root is the mount point that becomes the tree's root; "" for "/".
	Root string
	// TCPClose drops the established TCP connections in the images.
	TCPClose bool
	// OwnNetNS means that the caller fills the new network namespace, in
	// the setup-namespaces notification. It must be as it was at the dump.
	OwnNetNS bool
	// External maps what is not part of the tree to what takes its place,
	// such as "mnt[/dev/null]:/dev/null".
	External []string
	// InheritFiles take the place of external files in the images. The
	// caller keeps and closes its copies.
	InheritFiles []InheritFile
	// CgroupRoots maps a controller, as named in /proc/PID/cgroup ("" for
	// the unified hierarchy), to the directory in it, starting with "/",
	// that takes the place of the one the tree was dumped from.
	CgroupRoots map[string]string
	// CgroupRootsFromSelf fills CgroupRoots from where the worker is after
	// Place, for controllers that it does not hold.
	CgroupRootsFromSelf bool
	// Place is called with the worker's pid before the request is sent, to
	// put it into the cgroups that the tree shall be in.
	Place func(pid int) error
	// Deadline bounds the whole restore; default 60 s. When it strikes, Kill
	// is called, then CRIU is killed.
	Deadline time.Duration
	// Kill kills all tasks that the restore has made so far. It is called at
	// the deadline only; idempotent.
	Kill func() error
	// Notify is called for every notification; nil accepts all.
	Notify Notify
	// Sibling makes the root task a child of the calling process, which
	// must wait for it. Otherwise it becomes a child of init.
	Sibling bool
	// LazyPages leaves memory to be filled by a running lazy-pages daemon
	// whose socket is in Work.
	LazyPages bool
}

// InheritFile is a descriptor that a restored tree uses for an external file.
type InheritFile struct {
	// Key is the external's name, such as "extNet" or "pipe[1234]".
	Key  string
	File *os.File
}

// Restore makes a process tree from images and returns the root task's pid
// as the host sees it. After failure no task is left. The error is an
// [*Error] once CRIU was started; with [ErrDone] the tree runs all the same
// and the pid is valid.
func (e Engine) Restore(ctx context.Context, o RestoreOptions) (pid int, st RestoreStats, err error) {
	if o.Work == "" {
		o.Work = o.Images
	}
	dir, done, err := o.rootedImages()
	if err != nil {
		return 0, RestoreStats{}, fmt.Errorf("criu restore: %w", err)
	}
	defer func() {
		if derr := done(); derr != nil {
			// Hard links that nothing reads any more: no reason to end the tree.
			e.log().Warn("remove the images made for a restore", "err", derr)
		}
	}()
	o.Images = dir
	images, err := openDir("images", o.Images)
	if err != nil {
		return 0, RestoreStats{}, fmt.Errorf("criu restore: %w", err)
	}
	defer images.Close()
	work, err := openDir("work", o.Work)
	if err != nil {
		return 0, RestoreStats{}, fmt.Errorf("criu restore: %w", err)
	}
	defer work.Close()

	var root int // as the notifications told it
	var worker, known atomic.Int64
	op := operation{
		name: "restore", kind: rpc.CriuReqType_RESTORE, opts: o.request(),
		work: o.Work, deadline: orDefault(o.Deadline), release: o.Kill,
		notify: func(ctx context.Context, ev Event) error {
			if ev.PID > 0 {
				root = ev.PID
				known.Store(int64(root))
			}
			if o.Notify == nil {
				return nil
			}
			return o.Notify(ctx, ev)
		},
	}
	op.opts.ImagesDirFd = proto.Int32(int32(images.Fd()))
	op.opts.WorkDirFd = proto.Int32(int32(work.Fd()))
	for i, f := range o.InheritFiles {
		op.passed = append(op.passed, f.File)
		op.opts.InheritFd = append(op.opts.InheritFd, &rpc.InheritFd{Key: proto.String(f.Key), Fd: proto.Int32(int32(firstPassedFD + i))})
	}
	op.ready = func(pid int) error {
		worker.Store(int64(pid))
		return o.place(pid, op.opts)
	}
	if o.Sibling {
		op.bereft = func() bool { return rootEnded(int(worker.Load()), int(known.Load())) }
	}

	resp, err := e.run(ctx, op)
	if err != nil && !errors.Is(err, ErrDone) {
		identifyDumped(err, o.Images)
		if o.Sibling {
			if root == 0 { // it failed before the first notification of it
				root = int(resp.GetRestore().GetPid())
			}
			err = errors.Join(err, reap(root), reapGroup(int(worker.Load())))
		}
		return 0, RestoreStats{}, err
	}
	st, serr := ReadRestoreStats(o.Work)
	if serr != nil {
		// The tree runs; that its times are unknown must not end it.
		e.log().Warn("restore statistics are missing", "err", serr)
	}
	return int(resp.GetRestore().GetPid()), st, err
}

func (o RestoreOptions) request() *rpc.CriuOpts {
	r := commonRequest(o.Root, o.OwnNetNS, o.TCPClose, o.External)
	r.RstSibling = proto.Bool(o.Sibling)
	r.LazyPages = proto.Bool(o.LazyPages)
	// A descriptor of a device node may have been opened by a path that
	// another mount hides meanwhile.
	r.EvasiveDevices = proto.Bool(true)
	return r
}

// place puts the worker where the tree shall be and fills in the cgroup roots.
func (o RestoreOptions) place(pid int, r *rpc.CriuOpts) error {
	if o.Place != nil {
		if err := o.Place(pid); err != nil {
			return fmt.Errorf("place criu (pid %d): %w", pid, err)
		}
	}
	roots := map[string]string{}
	if o.CgroupRootsFromSelf {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return fmt.Errorf("find criu's cgroups: %w", err)
		}
		roots = parseCgroups(string(b))
	}
	for ctrl, path := range o.CgroupRoots {
		roots[ctrl] = path
	}
	for _, ctrl := range sortedKeys(roots) {
		r.CgRoot = append(r.CgRoot, &rpc.CgroupRoot{Ctrl: proto.String(ctrl), Path: proto.String(roots[ctrl])})
	}
	return nil
}

// parseCgroups reads a /proc/PID/cgroup (cgroups(7)): each controller's path,
// "" being the unified hierarchy's.
func parseCgroups(s string) map[string]string {
	roots := map[string]string{}
	for line := range strings.Lines(s) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		for ctrl := range strings.SplitSeq(fields[1], ",") {
			roots[ctrl] = fields[2]
		}
	}
	return roots
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// rootEnded says whether the root task, our own child and not CRIU's, is a
// zombie. Until CRIU has told its pid it is known by the worker's process group,
// in which it begins; the worker itself is waited for as soon as it has ended.
func rootEnded(worker, root int) bool {
	zombie := func(kind, id int) bool {
		var info unix.Siginfo
		err := unix.Waitid(kind, id, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		return err == nil && info.Signo != 0
	}
	if root > 0 {
		return zombie(unix.P_PID, root)
	}
	return worker > 0 && zombie(unix.P_PGID, worker)
}

// reapGroup waits for those of our children in a process group that have ended.
func reapGroup(group int) error {
	for group > 0 {
		pid, err := unix.Wait4(-group, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD) || err == nil && pid == 0:
			return nil
		case err != nil:
			return fmt.Errorf("wait for process group %d: %w", group, err)
		}
	}
	return nil
}

// reap ends and waits for the root task of a failed restore, our child:
// CRIU kills it, but cannot wait for it, and a zombie init keeps its
// namespaces. Not being our child, or being gone, is no error.
func reap(pid int) error {
	if pid <= 0 {
		return nil
	}
	end := time.Now().Add(killGrace)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD) || got == pid:
			return nil
		case err != nil:
			return fmt.Errorf("wait for pid %d: %w", pid, err)
		case time.Now().After(end):
			return fmt.Errorf("pid %d of the failed restore does not end", pid)
		}
		// It is our child that has not been waited for, so the pid is its.
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill pid %d: %w", pid, err)
		}
		time.Sleep(pause)
	}
}
