package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt gives a container whose supervisor died a new one. Init lives on; how
// it ends will not be known, as only its parent is told.
func (l *Locked) adopt(ctx context.Context) error {
	alive, err := l.supervised()
	if err != nil || alive {
		return err
	}
	l.m.log().Info("adopt a container whose supervisor died", "container", l.Config.Name)
	req := l.request(LaunchOptions{Timeout: 30 * time.Second})
	req.Adopt = true
	_, err = l.m.callSupervisor(ctx, req, nil)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	return nil
}

// unknownExit is the code of an init whose parent was gone.
const unknownExit = -1

// takeUp is bringUp for an init that runs already.
func (s *supervisor) takeUp() (*instance, error) {
	run, err := s.m.readRun(s.req.UID)
	if err != nil {
		return nil, err
	}
	if !run.Alive() {
		return nil, ErrDied
	}
	pidfd, err := unix.PidfdOpen(run.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("watch init: %w", err)
	}
	if !run.Alive() { // the pid went to another process before it was opened
		return nil, errors.Join(ErrDied, unix.Close(pidfd))
	}
	if master, err := heldConsole(run.Holder, run.HolderStart); err != nil {
		s.log.Warn("the console is lost", "err", err)
	} else if err := s.serveConsole(master); err != nil {
		return nil, errors.Join(err, unix.Close(pidfd))
	}
	run.Supervisor = os.Getpid()
	if err := runSchema.Write(s.m.runFile(s.req.UID), run); err != nil {
		return nil, errors.Join(err, unix.Close(pidfd))
	}
	return &instance{pid: run.PID, wait: func() (int, error) {
		defer unix.Close(pidfd)
		return unknownExit, pollEnd(pidfd)
	}}, nil
}

// pollEnd waits until the process of a pidfd has ended.
func pollEnd(pidfd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// The console's master must outlive a supervisor that is killed: with its last
// descriptor the kernel would hang up the container's console, and SIGHUP would
// end what runs in its foreground. So a second process, the holder, has a copy
// and does nothing but wait for init's end.
const holderEnv = "CTCTL_HOLD"

// holdConsole starts the holder. Its pid goes into run.json.
func (s *supervisor) holdConsole(initPID int) (pid int, start uint64, err error) {
	master, err := s.console.duplicate()
	if err != nil {
		return 0, 0, err
	}
	defer master.Close()
	fd, err := unix.PidfdOpen(initPID, 0)
	if err != nil {
		return 0, 0, err
	}
	pidfd := os.NewFile(uintptr(fd), "init")
	defer pidfd.Close()
	//nolint:noctx // it lives as long as init
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"ctctl", "hold", s.req.Name}
	cmd.Env = []string{holderEnv + "=1", "GOMAXPROCS=1"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{master, pidfd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	go func() { _ = cmd.Wait() }() // ends with init; its result says nothing
	return cmd.Process.Pid, startTime(cmd.Process.Pid), nil
}

// keepHeld starts another holder when the one there was has ended.
func (s *supervisor) keepHeld() error {
	if s.console == nil {
		return nil
	}
	run, err := s.m.readRun(s.req.UID)
	if err != nil || !run.Alive() || startTime(run.Holder) == run.HolderStart {
		return err
	}
	if run.Holder, run.HolderStart, err = s.holdConsole(run.PID); err != nil {
		return err
	}
	return runSchema.Write(s.m.runFile(s.req.UID), run)
}

// hold is the holder's main.
func hold() int {
	unix.CloseOnExec(consoleFD)
	unix.CloseOnExec(consoleFD + 1)
	if err := pollEnd(consoleFD + 1); err != nil {
		return 1
	}
	return 0
}

// consoleFD is where the holder has the master; init's pidfd is the next.
const consoleFD = 3

// heldConsole takes a copy of the master out of the holder (pidfd_getfd(2)).
func heldConsole(pid int, start uint64) (*os.File, error) {
	if pid <= 0 || start == 0 || startTime(pid) != start {
		return nil, errors.New("the console's holder is gone")
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, consoleFD, 0)
	if err != nil {
		return nil, fmt.Errorf("take the console from its holder: %w", err)
	}
	return os.NewFile(uintptr(fd), "console"), nil
}
