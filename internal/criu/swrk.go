package criu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// messageLimit is the largest message read from the worker. An answer
	// holds at most an error message, so this is far more than enough.
	messageLimit = 1 << 20
	// firstPassedFD is where the caller's descriptors start in the worker:
	// after stdin, stdout, stderr and the worker's end of the socket.
	firstPassedFD = 4
	// answerGrace is how long the last answer of a worker that has ended may take
	// to be read.
	answerGrace = 500 * time.Millisecond
	// exitGrace is how long a worker may take to end once it has answered.
	exitGrace = 5 * time.Second
	// killGrace is how long a worker may take to die of SIGKILL. One that
	// takes longer hangs in the kernel.
	killGrace = 3 * time.Second
)

// workerEnviron is all that CRIU gets. It looks for config files in
// $CRIU_CONFIG_FILE and $HOME and for plugins in $CRIU_LIBS_DIR; both can run
// code as root. PATH is for tar, which CRIU runs for each tmpfs.
var workerEnviron = []string{
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/nonexistent",
	"LC_ALL=C",
}

// worker is one running `criu swrk`.
type worker struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn
	stderr *os.File
	exited chan struct{} // closed once the process has been waited for
	// answered: the operation came to an end, and CRIU has waited for its helpers.
	answered bool
	// yielding is set while the worker waits for the answer to a
	// notification, and stays set once it was told to give up.
	yielding atomic.Bool
}

// startWorker starts the worker with passed as descriptors firstPassedFD and
// up. The caller keeps its copies and must call close.
func (e Engine) startWorker(ctx context.Context, passed []*os.File) (_ *worker, err error) {
	conn, remote, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	w := &worker{conn: conn, exited: make(chan struct{})}
	defer func() {
		if err != nil {
			w.closeFiles()
		}
	}()
	fd, err := unix.MemfdCreate("criu-stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for criu's stderr: %w", err)
	}
	w.stderr = os.NewFile(uintptr(fd), "criu-stderr")

	// Killing a worker half way harms the tasks, so the caller's context
	// does not: only kill does.
	w.cmd = exec.CommandContext(context.WithoutCancel(ctx), e.Binary, "--no-default-config", "swrk", "3")
	w.cmd.WaitDelay = killGrace
	w.cmd.Env = workerEnviron
	w.cmd.Dir = "/"
	w.cmd.ExtraFiles = append([]*os.File{remote}, passed...)
	w.cmd.Stdout, w.cmd.Stderr = w.stderr, w.stderr
	// A session of its own: ^C on the terminal must not reach it.
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	go func() {
		// How it ended is told by its answer and its log.
		_ = w.cmd.Wait()
		close(w.exited)
		// Processes that it has forked, such as its user namespace daemon, have
		// the socket too: when it is killed no end of the stream is seen. An error
		// says that the socket is closed.
		_ = w.conn.SetReadDeadline(time.Now().Add(answerGrace))
	}()
	return w, nil
}

// socketPair makes a SOCK_SEQPACKET pair, both ends close-on-exec.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	local := os.NewFile(uintptr(fds[0]), "criu-rpc")
	remote := os.NewFile(uintptr(fds[1]), "criu-rpc-worker")
	defer local.Close()
	c, err := net.FileConn(local) // duplicates
	if err != nil {
		remote.Close()
		return nil, nil, fmt.Errorf("use the socket pair: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		remote.Close()
		return nil, nil, fmt.Errorf("use the socket pair: it is a %T", c)
	}
	return conn, remote, nil
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

// call sends the request and serves notifications until the answer arrives.
// The answer is returned, when there was one, even with an error.
func (w *worker) call(ctx context.Context, req *rpc.CriuReq, notify Notify) (*rpc.CriuResp, error) {
	if err := w.send(req); err != nil {
		return nil, err
	}
	buf := make([]byte, messageLimit)
	var notifyErr error // the first
	for {
		resp, files, err := w.receive(buf)
		if err != nil {
			closeAll(files)
			return nil, after(notifyErr, err)
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			w.answered = true
			closeAll(files)
			return resp, verdict(resp, notifyErr)
		}
		ev := Event{Script: resp.GetNotify().GetScript(), PID: int(resp.GetNotify().GetPid()), Files: files}
		w.yielding.Store(true)
		err = inform(ctx, notify, ev)
		closeAll(files)
		if err != nil && notifyErr == nil {
			notifyErr = fmt.Errorf("%s: %w", escape(ev.Script), err)
		}
		ack := &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(err == nil)}
		if sendErr := w.send(ack); sendErr != nil {
			return nil, after(notifyErr, sendErr)
		}
		w.yielding.Store(err != nil)
	}
}

// inform calls notify. One that returns too late has failed.
func inform(ctx context.Context, notify Notify, ev Event) error {
	if notify != nil {
		if err := notify(ctx, ev); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// verdict is what the answer means after a Notify returned notifyErr, which
// explains a refusal better than CRIU does.
func verdict(resp *rpc.CriuResp, notifyErr error) error {
	switch {
	case resp.GetSuccess() && notifyErr != nil:
		return fmt.Errorf("%w: %w", ErrDone, notifyErr)
	case resp.GetSuccess():
		return nil
	case notifyErr != nil:
		return notifyErr
	}
	return answerError(resp)
}

// after tells of err, and of the error before it, if any.
func after(before, err error) error {
	if before == nil {
		return err
	}
	return fmt.Errorf("%w; then %w", before, err)
}

// answerError turns a negative answer into an error. Its message is only
// CRIU's first error line, often a harmless one: the log says more.
func answerError(resp *rpc.CriuResp) error {
	err := errRefused
	if n := resp.GetCrErrno(); n > 0 && n < 4096 {
		err = fmt.Errorf("%w: %w", errRefused, unix.Errno(n))
	}
	return err
}

// freeze stops the worker, but not the tasks that it traces.
func (w *worker) freeze() error {
	err := w.cmd.Process.Signal(unix.SIGSTOP)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// kill ends the worker the hard way and lets a blocked call return.
func (w *worker) kill() error {
	err := w.cmd.Process.Kill() // by pidfd where the kernel has them
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	// One stuck in the kernel keeps its end of the socket open.
	return errors.Join(err, w.conn.SetDeadline(time.Now()))
}

// close waits for the worker, kills it if it does not end in time, and
// releases everything.
func (w *worker) close() error {
	defer w.closeFiles()
	w.conn.Close() // a worker that waits for us sees the end of the stream
	if w.ended(exitGrace) {
		return w.endHelpers()
	}
	if err := w.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill criu (pid %d): %w", w.pid(), err)
	}
	if w.ended(killGrace) {
		return w.endHelpers()
	}
	return fmt.Errorf("%w: pid %d", ErrStuck, w.pid())
}

// endHelpers kills what a worker that was killed has forked, such as the
// processes by which it tries out the kernel: they wait for it for ever. They are
// in its process group; what it has restored after an answer may be too.
func (w *worker) endHelpers() error {
	if w.answered {
		return nil
	}
	if err := unix.Kill(-w.pid(), unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill the helpers of criu (pid %d): %w", w.pid(), err)
	}
	return nil
}

// ended waits for the process to be gone, for so long.
func (w *worker) ended(grace time.Duration) bool {
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-w.exited:
		return true
	case <-t.C:
		return false
	}
}

func (w *worker) closeFiles() {
	w.conn.Close()
	if w.stderr != nil {
		w.stderr.Close()
	}
}

// stderrTail returns the end of what the worker wrote outside its log: what
// went wrong before the log was opened.
func (w *worker) stderrTail() []byte {
	const most = 16 << 10
	st, err := w.stderr.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, min(st.Size(), most))
	n, err := w.stderr.ReadAt(b, max(0, st.Size()-most))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return bytes.TrimSpace(b[:n])
}

// openDir opens a directory to be passed by number: CRIU reaches it through
// /proc/<our pid>/fd, so it must stay open while the worker runs.
func openDir(what, path string) (*os.File, error) {
	if path == "" {
		return nil, fmt.Errorf("no %s directory given", what)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the %s directory: %w", what, err)
	}
	return f, nil
}

// freshLog removes a log of an earlier run, so that what is read afterwards
// is this run's, and CRIU makes it anew with mode 0600.
func freshLog(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("log name %q is a path", name)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("remove the old log: %w", err)
	}
	return path, nil
}
