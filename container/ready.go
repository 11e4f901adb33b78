package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
)

const (
	// readyPoll is how often a system that is just booting is looked at.
	readyPoll = 50 * time.Millisecond
	// askEvery is how often systemd is asked by a command inside while its
	// notification has not come: it may have been lost with a supervisor.
	askEvery = 5 * time.Second
	// whyTimeout bounds finding out what a boot waits for.
	whyTimeout = 5 * time.Second
)

// WaitReady waits until a started container has come up, and answers in what
// state: of systemd what `systemctl is-system-running` says, "running" or
// "degraded", after it has said that it has booted; "running" of
//
//   - sysvinit, busybox and OpenRC, once the scripts have ended that inittab(5)
//     has them wait for (see inittabBoot);
//   - any other init and a command, which have no such moment, once they are
//     executed.
//
// Errors: ErrDied; ErrTimeout when ctx ends first, which says what it waits for.
func (m *Manager) WaitReady(ctx context.Context, name string) (state string, err error) {
	defer wrapOp("wait for", name, &err)
	w := waiter{m: m, name: name}
	for {
		info, err := m.get(name)
		if err != nil {
			return "", err
		}
		if info.Status != Running {
			return "", fmt.Errorf("%w: it is %s now; see ctctl logs", ErrDied, info.Status)
		}
		state, err := w.look(ctx, info)
		if state != "" {
			return state, nil
		}
		var wrong *StateError
		if err != nil && ctx.Err() == nil && !errors.As(err, &wrong) {
			return "", err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return "", ctx.Err()
			}
			return "", fmt.Errorf("%w: it has not come up yet, and goes on%s", ErrTimeout, w.why(info))
		case <-time.After(readyPoll):
		}
	}
}

// waiter remembers between the looks at one boot.
type waiter struct {
	m     *Manager
	name  string
	asked time.Time
	table inittabBoot
}

// look answers in what state a running container is, "" while it comes up.
func (w *waiter) look(ctx context.Context, info Info) (string, error) {
	pid := info.Run.PID
	switch {
	case !runc.Executed(pid):
		return "", nil
	case !info.Config.System():
		return string(Running), nil
	}
	switch program(pid) {
	case "systemd":
		return w.lookAtSystemd(ctx, info)
	case "init", "busybox", "openrc-init":
		if !w.table.complete(pid) {
			return "", nil
		}
	}
	return string(Running), nil
}

// program is the name of what a process executes: /sbin/init is often a link.
func program(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return path.Base(strings.TrimSuffix(exe, " (deleted)"))
}

func (w *waiter) lookAtSystemd(ctx context.Context, info Info) (string, error) {
	var r readiness
	err := readySchema.Read(w.m.readyFile(info.Config.UID), &r)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// Without the file nobody listens: it was restored, or its /run is not ours.
	silent := err == nil && r.Booted.IsZero()
	if w.asked.IsZero() {
		w.asked = time.Now()
	}
	if silent && time.Since(w.asked) < askEvery {
		return "", nil
	}
	w.asked = time.Now()
	return w.m.askSystemd(ctx, w.name)
}

// askSystemd answers "" while the boot is not finished.
func (m *Manager) askSystemd(ctx context.Context, name string) (string, error) {
	// It fails in every state but running; the state is in its output. Early in
	// the boot it has nobody to talk to and says nothing.
	out, err := m.output(ctx, name, "systemctl", "is-system-running", "--wait")
	switch state := strings.TrimSpace(out); state {
	case "running", "degraded", "maintenance", "stopping":
		return state, err
	}
	return "", err
}

func (m *Manager) output(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	_, err := m.Exec(ctx, name, ExecOptions{Args: args, Stdout: &out})
	return out.String(), err
}

// why says in a few words what a boot waits for, with a colon before it; "" when
// that can't be told.
func (w *waiter) why(info Info) string {
	ctx, cancel := context.WithTimeout(context.Background(), whyTimeout)
	defer cancel()
	var waits []string
	switch program(info.Run.PID) {
	case "systemd":
		out, err := w.m.output(ctx, w.name, "systemctl", "list-jobs", "--no-legend", "--plain")
		if err != nil {
			return ""
		}
		waits = startJobs(out)
	default:
		waits = w.table.running
	}
	if len(waits) == 0 {
		return ""
	}
	return ": it waits for " + strings.Join(waits, ", ")
}

// maxJobs is how many jobs are named.
const maxJobs = 5

// startJobs picks the units whose jobs run out of what `systemctl list-jobs` says:
// JOB UNIT TYPE STATE. The others wait for those.
func startJobs(list string) []string {
	var units []string
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "running" {
			units = append(units, f[1])
		}
	}
	if len(units) > maxJobs {
		units = append(units[:maxJobs], "…")
	}
	return units
}
