package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/profile"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// Image is what a restore needs besides the configuration.
type Image struct {
	Name     string          `json:"name"`
	Dir      string          `json:"dir"`     // CRIU's image files, verified
	Runtime  json.RawMessage `json:"runtime"` // as runc.Container.Config gave it at the dump
	TCPClose bool            `json:"tcpClose"`
}

// LaunchOptions says how init comes to life.
type LaunchOptions struct {
	Image   *Image // nil: a fresh start
	Volume  string // the root; "" is the current one
	Timeout time.Duration
	// Commit is called, with an image, when all processes are there and none has
	// run yet nor heard from the outside. When it fails they are ended as if they
	// had never been; afterwards they are the container, whatever becomes of
	// the caller. CommitStep is the Intent.Step that it makes durable.
	Commit     func() error
	CommitStep string
}

// launchRequest is what the supervisor is told, over a socket on descriptor 3.
type launchRequest struct {
	Launch    string    `json:"launch"`
	Adopt     bool      `json:"adopt,omitempty"` // init runs already
	StateRoot string    `json:"stateRoot"`
	RunRoot   string    `json:"runRoot"`
	Name      string    `json:"name"`
	UID       string    `json:"uid"`
	Volume    string    `json:"volume"` // directory
	Spec      runc.Spec `json:"spec"`   // but for its profile, which depends on what is in Volume
	// Profile says what of the profile is wanted.
	Profile profile.Options `json:"profile"`
	Limits  quota.Limits    `json:"limits"`
	Net     netns.Config    `json:"net"`
	CRIU    string          `json:"criu"`
	Image   *Image          `json:"image,omitempty"`
	// CommitStep in the state says that the caller has committed, should it die
	// before it can say so.
	CommitStep string        `json:"commitStep,omitempty"`
	Timeout    time.Duration `json:"timeout"`
}

type launchReply struct {
	PID    int         `json:"pid"`
	Ready  bool        `json:"ready,omitempty"` // not the last one: waits for a commit
	Phases []phase     `json:"phases"`
	Error  string      `json:"error,omitempty"`
	CRIU   *criu.Error `json:"criu,omitempty"`
	Code   int         `json:"code,omitempty"` // of a runc.CommandError
	Kind   string      `json:"kind,omitempty"`
}

type phase struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// supervisorEnv marks a process as a supervisor.
const supervisorEnv = "CTCTL_SUPERVISE"

func (l *Locked) spec() runc.Spec {
	c := l.Effective()
	run := l.m.runDir(c.UID)
	return runc.Spec{
		ID: c.UID, StateDir: filepath.Join(run, "runtime"), Rootfs: filepath.Join(run, "root"),
		Hostname: c.Hostname, Cgroup: c.CgroupName(), IDs: c.IDs(), System: c.System(),
		Args: c.args(), Env: c.Env, Cwd: c.Workdir,
	}
}

// Launch starts the supervisor, which makes or restores init, and waits until
// init runs. On an error nothing of the attempt is left. An error after Commit
// was called with success means that the restored processes ran and have ended.
func (l *Locked) Launch(ctx context.Context, o LaunchOptions) (err error) {
	start := time.Now()
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	// End also sends a supervisor away that was about to start it anew.
	if err := l.End(ctx); err != nil {
		return fmt.Errorf("clear what an earlier run left: %w", err)
	}
	run := l.m.runDir(l.Config.UID)
	if err := os.MkdirAll(run, 0o711); err != nil {
		return err
	}
	if err := os.Chmod(run, 0o711); err != nil { // whatever the umask
		return err
	}
	if o.Image != nil {
		if err := l.m.CRIU.EnsureKdat(ctx, ""); err != nil {
			l.m.log().Warn("no kernel feature cache for CRIU, it will be slower", "err", err)
		}
	}
	committed := false
	reply, err := l.m.callSupervisor(ctx, l.request(o), func() (err error) {
		if o.Commit != nil {
			err = o.Commit()
		}
		committed = err == nil
		return err
	})
	if err != nil && committed {
		err = l.outlived(ctx, err)
	}
	l.m.trace("launch", start)
	for _, p := range reply.Phases {
		if l.m.Trace != nil {
			l.m.Trace("launch."+p.Name, p.Took)
		}
	}
	if err != nil {
		return errors.Join(err, l.keepLog(), l.sweep(context.WithoutCancel(ctx)))
	}
	return nil
}

// keepLog moves a supervisor's log to where it outlives the attempt.
func (l *Locked) keepLog() error {
	return ignoreAbsent(copyFileOver(l.m.supervisorLog(l.Config.UID), l.m.keptLog(l.Config.Name)))
}

func (m *Manager) supervisorLog(uid string) string {
	return filepath.Join(m.runDir(uid), "supervisor.log")
}

func (m *Manager) keptLog(name string) string { return filepath.Join(m.dir(name), "supervisor.log") }

func copyFileOver(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o600)
}

// outlived looks after an init that lost its supervisor after the commit.
func (l *Locked) outlived(ctx context.Context, cause error) error {
	run, err := l.m.readRun(l.Config.UID)
	if err == nil && !run.Alive() {
		return cause
	}
	if err == nil {
		l.m.log().Warn("the supervisor was lost, init lives", "container", l.Config.Name, "err", cause)
		err = l.Settled(context.WithoutCancel(ctx))
	}
	if err != nil { // it is the container all the same: it is not to be ended for this
		l.m.log().Error("init lives, not all is settled", "container", l.Config.Name, "err", err)
	}
	return nil
}

func (l *Locked) request(o LaunchOptions) launchRequest {
	if o.Volume == "" {
		o.Volume = l.State.Volume
	}
	now := l.Effective()
	return launchRequest{
		Launch: newUID(), StateRoot: l.m.StateRoot, RunRoot: l.m.RunRoot, Name: l.Config.Name, UID: l.Config.UID,
		Volume: l.m.Volumes.Path(o.Volume), Spec: l.spec(), Net: now.netConfig(), Limits: now.Limits,
		Profile: now.Profile.options(),
		CRIU:    l.m.CRIU.Binary, Image: o.Image, CommitStep: o.CommitStep, Timeout: o.Timeout,
	}
}

// callSupervisor starts the supervisor and waits for its reply. With an image it
// asks before the processes run; commit says whether they may.
func (m *Manager) callSupervisor(ctx context.Context, req launchRequest, commit func() error) (launchReply, error) {
	var reply launchReply
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return reply, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "supervisor"), os.NewFile(uintptr(pair[1]), "supervisor")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return reply, err
	}
	defer conn.Close()
	cmd, err := m.startSupervisor(req, theirs)
	if err != nil {
		return reply, err
	}
	theirs.Close()
	exited := make(chan struct{})
	go func() { // ends with the supervisor; the result is in its log
		_ = cmd.Wait()
		close(exited)
	}()
	b, err := json.Marshal(req)
	if err != nil {
		return reply, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Now()) })
	defer stop()
	if err := conn.SetReadDeadline(time.Now().Add(req.Timeout + 10*time.Second)); err != nil {
		return reply, err
	}
	if _, err := conn.Write(b); err != nil {
		return reply, fmt.Errorf("talk to the supervisor: %w", err)
	}
	if reply, err = hear(conn); err == nil && reply.Ready {
		// From here it goes on to the end, also when the caller is interrupted.
		stop()
		ctx = context.WithoutCancel(ctx)
		if err := conn.SetReadDeadline(time.Now().Add(req.Timeout)); err != nil {
			return reply, err
		}
		if err = commit(); err == nil {
			// One that is gone is noticed when it does not answer.
			_, _ = conn.Write(goAhead)
			reply, err = hear(conn)
		} else {
			_, _ = conn.Write(refusal) // it counts more than what the state says by now
			conn.Close()               // which ends what was restored
			<-exited
			return reply, fmt.Errorf("commit: %w", err)
		}
	}
	if err != nil {
		return reply, m.lostSupervisor(ctx, cmd, exited, req, err)
	}
	return reply, reply.err()
}

// goAhead or refusal is what a supervisor that is ready is sent.
var (
	goAhead = []byte("go")
	refusal = []byte("no")
)

// hear reads one message of the supervisor.
func hear(conn net.Conn) (r launchReply, err error) {
	buf := make([]byte, 1<<20)
	n, err := conn.Read(buf)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil {
		err = json.Unmarshal(buf[:n], &r)
	}
	return r, err
}

// lostSupervisor ends a supervisor that gave no answer.
func (m *Manager) lostSupervisor(ctx context.Context, cmd *exec.Cmd, exited <-chan struct{}, req launchRequest, err error) error {
	_ = cmd.Process.Kill() // it may have ended already
	<-exited
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: the supervisor gave no answer in %v", ErrTimeout, req.Timeout)
	}
	return fmt.Errorf("%w: the supervisor ended without an answer; see %s", ErrDied, m.keptLog(req.Name))
}

func (m *Manager) startSupervisor(req launchRequest, sock *os.File) (*exec.Cmd, error) {
	bin := m.Binary
	if bin == "" {
		bin = "/proc/self/exe"
	}
	logFile, err := os.OpenFile(m.supervisorLog(req.UID), os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	//nolint:noctx // it outlives the caller on purpose
	cmd := exec.Command(bin)
	cmd.Args = []string{"ctctl", "supervise", req.Name}
	cmd.Env = []string{supervisorEnv + "=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{sock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	return cmd, nil
}

func (r launchReply) err() error {
	if r.Error == "" {
		return nil
	}
	text := errors.New(r.Error)
	switch r.Kind {
	case "criu":
		return &launchError{text: r.Error, err: r.CRIU}
	case "command":
		return &launchError{text: r.Error, err: &runc.CommandError{Code: r.Code, Err: text}}
	case "timeout":
		return &launchError{text: r.Error, err: ErrTimeout}
	case "excess":
		return &launchError{text: r.Error, err: runc.ErrExcess}
	case "busy":
		return &launchError{text: r.Error, err: statefile.ErrBusy}
	}
	for _, k := range launchKinds {
		if k.kind == r.Kind {
			return &launchError{text: r.Error, err: k.err}
		}
	}
	return text
}

// launchKinds are further errors that a caller can tell apart.
var launchKinds = []struct {
	kind string
	err  error
}{
	{"address", netns.ErrAddressInUse},
	{"port", netns.ErrPortInUse},
	{"network", netns.ErrConfig},
	{"usage", quota.ErrBelowUsage},
	{"unsupported", quota.ErrUnsupported},
	{"device", quota.ErrNoDevice},
}

// launchError carries an error's text from the supervisor and its kind.
type launchError struct {
	text string
	err  error
}

func (e *launchError) Error() string { return e.text }
func (e *launchError) Unwrap() error { return e.err }

// replyFor turns an error into what crosses the socket.
func replyFor(err error) launchReply {
	r := launchReply{Error: err.Error()}
	var ce *criu.Error
	var cmd *runc.CommandError
	switch {
	case errors.Is(err, runc.ErrExcess):
		r.Kind = "excess"
	case errors.Is(err, statefile.ErrBusy):
		r.Kind = "busy"
	case errors.As(err, &ce):
		plain := *ce
		plain.Err = nil // an interface does not cross the socket; its text is in Error
		r.Kind, r.CRIU = "criu", &plain
	case errors.As(err, &cmd):
		r.Kind, r.Code = "command", cmd.Code
	case errors.Is(err, context.DeadlineExceeded):
		r.Kind = "timeout"
	}
	for _, k := range launchKinds {
		if r.Kind == "" && errors.Is(err, k.err) {
			r.Kind = k.kind
		}
	}
	return r
}
