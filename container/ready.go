package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
)

// readyPoll is how often a system that is just booting is asked.
const readyPoll = 50 * time.Millisecond

// WaitReady waits until a started container has come up, and answers in what
// state: of systemd what `systemctl is-system-running` says, "running" or
// "degraded", once its start-up jobs are done; "running" of every other init and
// of a command, which have no such moment. Errors: ErrDied, ErrTimeout when ctx
// ends first.
func (m *Manager) WaitReady(ctx context.Context, name string) (state string, err error) {
	defer wrapOp("wait for", name, &err)
	for {
		info, err := m.get(name)
		if err != nil {
			return "", err
		}
		if info.Status != Running {
			return "", fmt.Errorf("%w: it is %s now; see ctctl logs", ErrDied, info.Status)
		}
		state, err := m.ready(ctx, name, info)
		if state != "" {
			return state, nil
		}
		var wrong *StateError
		if err != nil && ctx.Err() == nil && !errors.As(err, &wrong) {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w: it has not come up yet, and goes on", ErrTimeout)
		case <-time.After(readyPoll):
		}
	}
}

// ready answers in what state a running container is, "" while it comes up.
func (m *Manager) ready(ctx context.Context, name string, info Info) (string, error) {
	switch {
	case !runc.Executed(info.Run.PID):
		return "", nil
	case info.Config.System() && isSystemd(info.Run.PID):
		return m.askSystemd(ctx, name)
	}
	return string(Running), nil
}

// isSystemd looks at what init executes: /sbin/init is usually a link.
func isSystemd(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && path.Base(exe) == "systemd"
}

// askSystemd answers "" while the boot is not finished.
func (m *Manager) askSystemd(ctx context.Context, name string) (string, error) {
	var out bytes.Buffer
	// It fails in every state but running; the state is in its output. Early in
	// the boot it has nobody to talk to and says nothing.
	_, err := m.Exec(ctx, name, ExecOptions{Args: []string{"systemctl", "is-system-running", "--wait"}, Stdout: &out})
	switch state := strings.TrimSpace(out.String()); state {
	case "running", "degraded", "maintenance", "stopping":
		return state, err
	}
	return "", err
}
