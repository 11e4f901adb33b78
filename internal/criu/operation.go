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

// releaseGrace is how long the caller's Thaw or Kill, and then what there is
// to clean up, may take at the deadline before CRIU is killed regardless.
const releaseGrace = 5 * time.Second

// giveUpGrace is how long, after the deadline, a Notify may take to return
// and CRIU to clean up, before CRIU is killed.
const giveUpGrace = 2 * time.Second

// operation is one request to a worker of its own, with the deadline and the
// log around it.
type operation struct {
	name     string // "dump", "restore"
	kind     rpc.CriuReqType
	opts     *rpc.CriuOpts
	work     string // directory of the log and the statistics
	passed   []*os.File
	deadline time.Duration
	release  func() error        // at the deadline, before anything else
	settle   func() error        // after that, just before the worker is killed
	ready    func(pid int) error // before the request is sent; may change opts
	// bereft says that a process which CRIU waits for has ended, and that CRIU
	// has no way to notice; nil: that can't be.
	bereft func() bool
	notify Notify
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
	dog := watch(ctx, op.deadline, op.release, op.settle, w)
	look := make(chan struct{})
	go func() {
		defer close(look)
		dog.mind(op.bereft)
	}()
	resp, err := op.call(dog.ctx, w)
	close(dog.called)
	<-look
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
			err = op.overdue(dog.reason(), strikeErr, err)
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

// overdue is the error of an operation that the watchdog has ended. That the
// worker answered no more is its doing and not worth telling.
func (op operation) overdue(reason, strikeErr, err error) error {
	late := reason
	if errors.Is(reason, context.DeadlineExceeded) {
		late = fmt.Errorf("%w after %s", ErrDeadline, op.deadline)
	}
	for _, cause := range []error{strikeErr, err} {
		if cause != nil && !errors.Is(cause, os.ErrDeadlineExceeded) && !errors.Is(cause, errWorkerGone) {
			late = fmt.Errorf("%w: %w", late, cause)
		}
	}
	return late
}

// watchdog ends a worker that takes too long.
type watchdog struct {
	ctx    context.Context // for the notifications: ends at the deadline
	cancel context.CancelFunc
	strike context.CancelCauseFunc // before the deadline
	called chan struct{}           // closed by the user when the worker is done with
	stop   func() bool
	done   chan struct{}
	err    error // of release and kill; read after done
}

// watch strikes once, d from now or when mind finds a reason, unless end comes first. It calls release
// before anything else, because a worker in ptrace attach on a frozen task
// does not die, and no signal reaches it, until the task is thawed.
//
// A worker that waits for a notification's answer is given a moment to be
// told to give up: it then cleans up after itself. Any other is stopped, so
// that settle can clean up while the tasks stand still, and killed.
func watch(ctx context.Context, d time.Duration, release, settle func() error, w *worker) *watchdog {
	g := &watchdog{called: make(chan struct{}), done: make(chan struct{})}
	early, strike := context.WithCancelCause(context.WithoutCancel(ctx))
	g.strike = strike
	g.ctx, g.cancel = context.WithTimeout(early, d)
	g.stop = context.AfterFunc(g.ctx, func() {
		defer close(g.done)
		g.err = bounded(release)
		if w.yielding.Load() && g.callEnds() {
			return
		}
		for _, step := range []func() error{w.freeze, func() error { return bounded(settle) }, w.kill} {
			if err := step(); err != nil {
				g.err = after(g.err, err)
			}
		}
	})
	return g
}

// callEnds waits for the call to end, but not longer than giveUpGrace.
func (g *watchdog) callEnds() bool {
	t := time.NewTimer(giveUpGrace)
	defer t.Stop()
	select {
	case <-g.called:
		return true
	case <-t.C:
		return false
	}
}

const (
	mindInterval = 200 * time.Millisecond
	// bereftGrace is how long CRIU has to end by itself: it kills what it has made
	// when a restore fails.
	bereftGrace = time.Second
)

// mind strikes as soon as bereft has been true for bereftGrace. It returns when
// the call has ended, or the watchdog has struck.
func (g *watchdog) mind(bereft func() bool) {
	if bereft == nil {
		return
	}
	tick := time.NewTicker(mindInterval)
	defer tick.Stop()
	for since := time.Now(); ; {
		select {
		case <-g.called:
			return
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
		if !bereft() {
			since = time.Now()
		} else if time.Since(since) > bereftGrace {
			g.strike(ErrTaskLost)
			return
		}
	}
}

// reason is why the watchdog has struck.
func (g *watchdog) reason() error { return context.Cause(g.ctx) }

// end disarms the watchdog and tells whether it has struck.
func (g *watchdog) end() (struck bool, err error) {
	defer g.strike(nil)
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
		return fmt.Errorf("releasing the tasks takes longer than %s", releaseGrace)
	}
}
