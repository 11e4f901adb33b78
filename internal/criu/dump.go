package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// GhostLimitBytes is how large a deleted but open file may be, by default, to go
// into the images. CRIU's own limit of 1 MiB is too small for databases and logs.
const GhostLimitBytes = 256 << 20

// untracedGrace is how long tasks may take to be released by the kernel after
// their tracer was killed.
const untracedGrace = 3 * time.Second

// DumpOptions say what to dump and where to. PID and Images are required.
type DumpOptions struct {
	// PID is the root of the process tree, usually a container's init.
	PID int
	// Root is the tree's root directory as the host sees it; "" for "/".
	Root string
	// Images is an existing directory for the image files.
	Images string
	// Work is the directory for dump.log and the statistics; "" for Images.
	Work string
	// ParentImages is the directory of the previous images of a chain,
	// relative to Images, as CRIU wants it; "" for none.
	ParentImages string
	// FreezeCgroup is the directory of the freezer cgroup that holds all
	// tasks of the tree; freeze it before: CRIU itself waits in steps of
	// 100 ms. "" makes CRIU seize the tasks one by one.
	FreezeCgroup string
	// Freeze is called when the worker has been started and before it is asked
	// to dump, so that the tasks do not stand still while it comes up; nil does
	// nothing.
	Freeze func(ctx context.Context) error
	// LeaveRunning lets the tasks go on afterwards, LeaveStopped leaves them
	// stopped by SIGSTOP. With neither they are killed.
	LeaveRunning, LeaveStopped bool
	// TCPClose drops established TCP connections instead of saving them.
	TCPClose bool
	// SkipInFlight leaves out connections that a listener has not accepted yet,
	// which otherwise make the dump fail; their clients have to connect again.
	SkipInFlight bool
	// OwnNetNS means that the tree has a network namespace of its own,
	// which CRIU shall leave to the caller to make and fill.
	OwnNetNS bool
	// External names what is not part of the tree, such as
	// "mnt[/dev/null]:/dev/null".
	External []string
	// Deadline bounds the whole dump; default 60 s. When it strikes, Thaw
	// is called, then CRIU is killed, then the tasks are checked to be
	// traced no more and their TCP connections taken out of repair mode.
	// CRIU's nftables lock stays: the caller removes it.
	Deadline time.Duration
	// Thaw thaws the tasks, whoever froze them. It is called at the deadline
	// only; idempotent, and it must not wait for the tasks.
	Thaw func() error
	// PIDs lists the tasks of the tree, for the check after the deadline;
	// nil walks the children of PID.
	PIDs func() ([]int, error)
	// Notify is called for every notification; nil accepts all.
	Notify Notify
	// GhostLimitBytes is the size limit of a deleted open file; default
	// 256 MiB.
	GhostLimitBytes uint32
	// PageSocket is a connection to a page server for the memory pages;
	// nil writes them to Images. The caller keeps and closes its copy.
	PageSocket *os.File
	// TrackMemory turns on dirty page tracking for a later incremental dump.
	TrackMemory bool
}

// Dump writes the images of a process tree. After success without
// LeaveRunning or LeaveStopped the tasks are gone; after failure they go on
// (frozen still, if the caller froze them). The error is an [*Error] once
// CRIU was started; it is [ErrDone] when the images are complete all the same.
// Statistics are zero on failure.
func (e Engine) Dump(ctx context.Context, o DumpOptions) (DumpStats, error) {
	images, err := openDir("images", o.Images)
	if err != nil {
		return DumpStats{}, fmt.Errorf("criu dump: %w", err)
	}
	defer images.Close()
	if o.Work == "" {
		o.Work = o.Images
	}
	work, err := openDir("work", o.Work)
	if err != nil {
		return DumpStats{}, fmt.Errorf("criu dump: %w", err)
	}
	defer work.Close()

	if o.PIDs == nil {
		o.PIDs = func() ([]int, error) { return descendants(o.PID) }
	}
	op := operation{
		name: "dump", kind: rpc.CriuReqType_DUMP, opts: o.request(),
		work: o.Work, deadline: orDefault(o.Deadline), release: o.Thaw, notify: o.Notify,
		settle: func() error { return endRepair(o.PIDs) },
	}
	if o.Freeze != nil {
		op.ready = func(int) error { return o.Freeze(ctx) }
	}
	op.opts.ImagesDirFd = proto.Int32(int32(images.Fd()))
	op.opts.WorkDirFd = proto.Int32(int32(work.Fd()))
	if o.PageSocket != nil {
		op.passed = []*os.File{o.PageSocket}
		op.opts.Ps = &rpc.CriuPageServerInfo{Fd: proto.Int32(firstPassedFD)}
	}
	_, err = e.run(ctx, op)
	if err != nil && !errors.Is(err, ErrDone) {
		identifyLive(err)
		return DumpStats{}, o.afterFailure(err)
	}
	st, serr := ReadDumpStats(o.Work)
	if serr != nil {
		// The images are complete; how long it took does not matter as much.
		e.log().Warn("dump statistics are missing", "err", serr)
	}
	return st, err
}

// request translates the options. TCP connections, file locks, sockets that
// lead outside and names with another hard link are saved, not refused.
func (o DumpOptions) request() *rpc.CriuOpts {
	ghost := o.GhostLimitBytes
	if ghost == 0 {
		ghost = GhostLimitBytes
	}
	r := commonRequest(o.Root, o.OwnNetNS, o.TCPClose, o.External)
	r.Pid = proto.Int32(int32(o.PID))
	r.LeaveRunning = proto.Bool(o.LeaveRunning)
	r.LeaveStopped = proto.Bool(o.LeaveStopped)
	r.LinkRemap = proto.Bool(true)
	r.TcpSkipInFlight = proto.Bool(o.SkipInFlight)
	r.GhostLimit = proto.Uint32(ghost)
	if o.FreezeCgroup != "" {
		r.FreezeCgroup = proto.String(o.FreezeCgroup)
	}
	if o.ParentImages != "" {
		r.ParentImg = proto.String(o.ParentImages)
	}
	if o.TrackMemory || o.ParentImages != "" {
		r.TrackMem = proto.Bool(true)
	}
	return r
}

// commonRequest holds what dump and restore agree on.
//
// The network is locked with nftables: the default needs the iptables
// programs. It is set here and not in a config file, where CRIU 4.1 crashes
// on it. Control groups are soft: CRIU re-creates what is missing and leaves
// alone what is there. shell_job is what lets CRIU restore a console that is open
// but no session's, with orphan_pts_master for where its master comes from.
func commonRequest(root string, ownNetNS, tcpClose bool, external []string) *rpc.CriuOpts {
	r := &rpc.CriuOpts{
		TcpEstablished:    proto.Bool(!tcpClose),
		TcpClose:          proto.Bool(tcpClose),
		FileLocks:         proto.Bool(true),
		ExtUnixSk:         proto.Bool(true),
		OrphanPtsMaster:   proto.Bool(true),
		ShellJob:          proto.Bool(true),
		NetworkLock:       rpc.CriuNetworkLockMethod_NFTABLES.Enum(),
		ManageCgroups:     proto.Bool(true),
		ManageCgroupsMode: rpc.CriuCgMode_SOFT.Enum(),
		External:          external,
	}
	if yard := ownCgroupYard(); yard != "" {
		r.CgroupYard = proto.String(yard)
	}
	if root != "" {
		r.Root = proto.String(root)
	}
	if ownNetNS {
		r.EmptyNs = proto.Uint32(unix.CLONE_NEWNET)
	}
	return r
}

// afterFailure sees, when CRIU was killed, that it let go of the tasks and of
// their connections.
func (o DumpOptions) afterFailure(err error) error {
	if !errors.Is(err, ErrDeadline) {
		return err
	}
	if terr := waitUntraced(o.PIDs, untracedGrace); terr != nil {
		return errors.Join(err, terr)
	}
	// It may have gone on for an instant after the first time.
	if rerr := endRepair(o.PIDs); rerr != nil {
		return errors.Join(err, rerr)
	}
	return err
}
