package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

// releaseGrace is how long the caller's Thaw or Kill may take at the deadline
// before CRIU is killed regardless.
const releaseGrace = 5 * time.Second

// operation is one request to a worker of its own, with the deadline and the
// log around it.
type operation struct {
	name     string // "dump", "restore"
	kind     rpc.CriuReqType
	opts     *rpc.CriuOpts
	work     string // directory of the log and the statistics
	passed   []*os.File
	deadline time.Duration
	release  func() error        // at the deadline, before the worker is killed
	ready    func(pid int) error // before the request is sent; may change opts
	notify   Notify
}

// run performs the operation. The error is an [*Error] unless nothing was
// sent. The answer comes with an error when CRIU did answer.
func (e Engine) run(ctx context.Context, op operation) (*rpc.CriuResp, error) {
	log, err := freshLog(op.work, op.name+".log")
	if err != nil {
		return nil, fmt.Errorf("criu %s: %w", op.name, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := e.startWorker(ctx, op.passed)
	if err != nil {
		return nil, fmt.Errorf("criu %s: %w", op.name, err)
	}
	dog := watch(ctx, op.deadline, op.release, w)
	resp, err := op.call(dog.ctx, w)
	struck, strikeErr := dog.end()
	// The tail must be read before close, which drops the file.
	tail := w.stderrTail()
	closeErr := w.close()
	switch {
	case err == nil && closeErr == nil:
		return resp, nil
	case err == nil:
		err = fmt.Errorf("%w: %w", ErrDone, closeErr)
	default:
		if struck && !errors.Is(err, ErrDone) {
			err = fmt.Errorf("%w after %s: %w", ErrDeadline, op.deadline, after(strikeErr, err))
		}
		if closeErr != nil {
			err = after(err, closeErr)
		}
	}
	return resp, newError(op.name, log, tail, err)
}

func (op operation) call(ctx context.Context, w *worker) (*rpc.CriuResp, error) {
	if op.ready != nil {
		if err := op.ready(w.pid()); err != nil {
			return nil, err
		}
	}
	op.opts.LogLevel = proto.Int32(4)
	op.opts.LogFile = proto.String(op.name + ".log")
	op.opts.NotifyScripts = proto.Bool(true)
	// CRIU's own limit covers collecting the tasks only. It comes after
	// ours, which knows how to thaw.
	op.opts.Timeout = proto.Uint32(uint32((op.deadline + 10*time.Second) / time.Second))
	return w.call(ctx, &rpc.CriuReq{Type: op.kind.Enum(), Opts: op.opts}, op.notify)
}

// watchdog ends a worker that takes too long.
type watchdog struct {
	ctx    context.Context // for the notifications: ends at the deadline
	cancel context.CancelFunc
	stop   func() bool
	done   chan struct{}
	err    error // of release and kill; read after done
}

// watch strikes once, d from now, unless end comes first: release runs first,
// because a worker in ptrace attach on a frozen task does not die, and no
// signal reaches it, until the task is thawed.
func watch(ctx context.Context, d time.Duration, release func() error, w *worker) *watchdog {
	g := &watchdog{done: make(chan struct{})}
	g.ctx, g.cancel = context.WithTimeout(context.WithoutCancel(ctx), d)
	g.stop = context.AfterFunc(g.ctx, func() {
		defer close(g.done)
		err := bounded(release)
		if killErr := w.kill(); killErr != nil {
			err = after(err, killErr)
		}
		g.err = err
	})
	return g
}

// end disarms the watchdog and tells whether it has struck.
func (g *watchdog) end() (struck bool, err error) {
	defer g.cancel()
	if g.stop() {
		return false, nil
	}
	<-g.done
	return true, g.err
}

// bounded calls f, but does not wait for it longer than releaseGrace.
func bounded(f func() error) error {
	if f == nil {
		return nil
	}
	result := make(chan error, 1)
	go func() { result <- f() }()
	t := time.NewTimer(releaseGrace)
	defer t.Stop()
	select {
	case err := <-result:
		return err
	case <-t.C:
		return fmt.Errorf("thawing or killing the tasks takes longer than %s", releaseGrace)
	}
}
