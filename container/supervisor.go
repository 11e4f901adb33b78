package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
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

// supervisor is one process per running container: init's parent.
type supervisor struct {
	req     launchRequest
	m       *Manager
	group   quota.Group
	log     *slog.Logger
	console *console
	notices *net.UnixConn // where init tells that it has booted
	phases  []phase
	// conn leads to the caller until it was answered.
	conn net.Conn
	// committed: the caller wants a restored container even should it not hear
	// that it runs.
	committed bool
	// unplugged: the network is still to be plugged in.
	unplugged bool
}

// instance is one life of init.
type instance struct {
	pid  int
	wait func() (code int, err error)
}

// supervise is the supervisor's main: one request in, one reply out, then it
// stays until init has ended. It returns the exit code of the process.
func supervise() int {
	// Caught, not ignored: an ignored signal stays so in what is executed, and
	// CRIU's helper processes, like a container's, are ended with SIGTERM.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	// A container's root must reach the directories that are made here.
	unix.Umask(0o022)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	unix.CloseOnExec(3)
	f := os.NewFile(3, "caller")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		log.Error("no caller", "err", err)
		return 2
	}
	s := &supervisor{log: log, conn: conn}
	if err := s.hear(conn); err != nil {
		log.Error("bad request", "err", err)
		return 2
	}
	lock, err := statefile.TryLock(filepath.Join(s.m.runDir(s.req.UID), "supervisor.lock"), "supervisor of "+s.req.Name)
	if err != nil {
		s.answer(conn, replyFor(err))
		return 1
	}
	if gone(conn) { // killed before anybody could see this process
		return 1
	}
	// Not private: what the host unmounts later must not be kept here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		s.answer(conn, replyFor(fmt.Errorf("own mount namespace: %w", err)))
		return 1
	}
	dropForeignPools(s.req.StateRoot, log)
	if err := quota.StandApart(os.Getpid()); err != nil {
		log.Warn("the service or session that started this may end it", "err", err)
	}
	inst, err := s.begin(context.Background())
	if err != nil {
		s.answer(conn, replyFor(err))
		return 1
	}
	heard := s.answer(conn, launchReply{PID: inst.pid, Phases: s.phases})
	conn.Close()
	if !heard && !s.req.Adopt && !s.committed { // the caller is gone: nobody wants this container
		s.discard(inst)
		return 1
	}
	s.stay(inst)
	if err := lock.Unlock(); err != nil {
		log.Error("unlock", "err", err)
	}
	return 0
}

// gone says whether the other end has been closed, whatever is still to be read.
func gone(conn net.Conn) bool {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, perr := unix.Poll(p, 0)
		hup = perr == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0
	})
	return hup || err != nil
}

func (s *supervisor) hear(conn net.Conn) error {
	buf := make([]byte, 4<<20)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(buf[:n], &s.req); err != nil {
		return err
	}
	s.log = s.log.With("container", s.req.Name)
	s.m = &Manager{
		StateRoot: s.req.StateRoot, RunRoot: s.req.RunRoot, CRIU: criu.Engine{Binary: s.req.CRIU},
		Volumes: volumesIn(filepath.Dir(s.req.Volume)), Log: s.log,
	}
	group, err := quota.Open(s.req.Spec.Cgroup)
	s.group = group.WithPool(s.req.Volume)
	return err
}

func (s *supervisor) answer(conn net.Conn, r launchReply) bool {
	b, err := json.Marshal(r)
	if err == nil {
		_, err = conn.Write(b)
	}
	if err != nil {
		s.log.Error("answer the caller", "err", err)
	}
	if r.Error != "" {
		s.log.Error("launch", "err", r.Error)
	}
	return err == nil
}

func (s *supervisor) phase(name string, since time.Time) {
	s.phases = append(s.phases, phase{Name: name, Took: time.Since(since)})
}

func (s *supervisor) begin(ctx context.Context) (*instance, error) {
	if s.req.Adopt {
		return s.takeUp()
	}
	return s.bringUp(ctx, s.req)
}

// bringUp makes or restores init and records it. On an error nothing runs.
func (s *supervisor) bringUp(ctx context.Context, req launchRequest) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, req.Timeout)
	defer cancel()
	start := time.Now()
	if err := os.MkdirAll(req.Spec.StateDir, 0o711); err != nil {
		return nil, err
	}
	if err := runc.MountRoot(req.Volume, req.Spec.Rootfs, req.Spec.IDs); err != nil {
		return nil, err
	}
	s.phase("root", start)
	var inst *instance
	var err error
	if req.Spec.Profile, err = req.profile(); err != nil {
		return nil, errors.Join(err, s.unmountRoot())
	}
	if req.Image == nil {
		inst, err = s.start(ctx, req)
	} else {
		inst, err = s.restore(ctx, req)
	}
	if err != nil {
		return nil, errors.Join(err, s.unmountRoot())
	}
	return inst, nil
}

// profile looks at what the container's root has as init.
func (r launchRequest) profile() (profile.Profile, error) {
	return profileOf(r.Volume, r.Spec, r.Profile)
}

// delegate gives init's own cgroup to the container's root.
func (s *supervisor) delegate(req launchRequest) error {
	if !req.Spec.Profile.Delegate {
		return nil
	}
	root := uint32(0)
	if req.Spec.IDs != nil {
		root = req.Spec.IDs.Base
	}
	return s.group.Delegate(root, root)
}

// unmountRoot is idempotent; a supervisor that adopted its container never
// mounted one.
func (s *supervisor) unmountRoot() error {
	err := unix.Unmount(s.req.Spec.Rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (s *supervisor) start(ctx context.Context, req launchRequest) (_ *instance, err error) {
	began := time.Now()
	if notifies(req.Spec) {
		req.Spec.Env = withNotify(req.Spec.Env)
	}
	in, err := runc.Start(req.Spec)
	if err != nil {
		return nil, errors.Join(err, s.group.Remove(ctx))
	}
	s.phase("namespaces", began)
	defer func() {
		if err != nil {
			clean := context.WithoutCancel(ctx)
			err = errors.Join(err, in.Abandon(), s.group.Remove(clean), netns.Leave(clean, req.Net, false))
		}
	}()
	began = time.Now()
	if err := s.delegate(req); err != nil {
		return nil, err
	}
	if err := errors.Join(s.group.Apply(req.Limits), s.group.BoundTree()); err != nil {
		return nil, err
	}
	s.phase("limits", began)
	began = time.Now()
	if err := netns.Attach(ctx, in.PID, req.Net); err != nil {
		return nil, err
	}
	if err := netns.Join(ctx, req.Net); err != nil {
		return nil, err
	}
	s.phase("network", began)
	if err := s.serveConsole(in.Console); err != nil {
		return nil, err
	}
	began = time.Now()
	if err := s.record(in.PID); err != nil {
		return nil, err
	}
	if notifies(req.Spec) {
		if err := s.hearBoot(in.PID); err != nil { // then it is asked
			s.log.Warn("no notification of the boot", "err", err)
		}
	}
	if err := in.Exec(); err != nil {
		return nil, err
	}
	s.phase("exec", began)
	return &instance{pid: in.PID, wait: func() (int, error) {
		st, err := in.Wait()
		if err != nil {
			return -1, err
		}
		return runc.ExitCode(st), nil
	}}, nil
}

// record writes run.json, from which on the container counts as running.
func (s *supervisor) record(pid int) error {
	// A mark that an operation left on an earlier life does not hold for this one.
	err := errors.Join(
		ignoreAbsent(os.Remove(s.m.leavingFile(s.req.UID))),
		ignoreAbsent(os.Remove(s.m.readyFile(s.req.UID))),
	)
	if err != nil {
		return err
	}
	r := Run{
		PID: pid, StartTime: startTime(pid), BootID: bootID(), Supervisor: os.Getpid(), Started: time.Now().UTC(), Launch: s.req.Launch,
	}
	if s.req.Image != nil {
		r.Restored = s.req.Image.Name
	}
	if s.console != nil {
		var err error
		if r.Holder, r.HolderStart, err = s.holdConsole(pid); err != nil {
			return fmt.Errorf("hold the console: %w", err)
		}
	}
	return runSchema.Write(s.m.runFile(s.req.UID), &r)
}

func (s *supervisor) serveConsole(master *os.File) error {
	if s.console == nil {
		c, err := newConsole(s.m.runDir(s.req.UID), s.m.LogFile(s.req.Name), s.log)
		if err != nil {
			return fmt.Errorf("console: %w", err)
		}
		s.console = c
	}
	s.console.attach(master)
	return nil
}

// discard ends an init whose caller went away before it heard of it.
func (s *supervisor) discard(inst *instance) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// Without a record nobody takes it for running while it is being ended.
	err := errors.Join(ignoreAbsent(os.Remove(s.m.runFile(s.req.UID))), s.group.KillAll(ctx))
	_, werr := inst.wait()
	err = errors.Join(err, werr, s.teardown(ctx, s.req.Image != nil))
	if err != nil {
		s.log.Error("discard", "err", err)
	}
}

// teardown removes what a run leaves in the kernel and in the run root.
func (s *supervisor) teardown(ctx context.Context, blackhole bool) error {
	s.endNotices()
	if s.console != nil {
		s.console.close()
		s.console = nil
	}
	return errors.Join(
		s.group.KillAll(ctx), s.group.Remove(ctx),
		netns.Leave(ctx, s.req.Net, blackhole),
		runc.Forget(s.req.Spec.StateDir, s.req.Spec.ID),
		ignoreAbsent(os.Remove(s.m.runFile(s.req.UID))),
		s.unmountRoot(),
	)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
