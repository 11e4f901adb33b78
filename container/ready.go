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
)

// readyPoll is how often a system that is just booting is asked.
const readyPoll = 250 * time.Millisecond

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
		if !info.Config.System() || !isSystemd(info.Run) {
			return string(Running), nil
		}
		state, err := m.askSystemd(ctx, name)
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

// isSystemd looks at what init executes: /sbin/init is usually a link.
func isSystemd(run *Run) bool {
	if run == nil {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", run.PID))
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
