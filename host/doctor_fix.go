package host

import (
	"context"
	"fmt"
	"slices"

	"github.com/ctctl/ctctl/preflight"
	"golang.org/x/sys/unix"
)

// remedy cures a finding without ending anything that the container does. It says
// what it did, and what remains to be done ("" for nothing).
type remedy func(ctx context.Context, h *Host, name string, f preflight.Finding) (did, left string, err error)

// remedies by the code of a finding. What has none is the administrator's to
// decide: its cure ends a program or deletes something.
var remedies = map[string]remedy{
	"stopped": continueStopped,
	"mptcp":   turnMPTCPOff,
}

// Fix examines a container as Examine does, or with a purpose as Preflight does,
// applies the cures that end nothing, and examines it again. Findings that were
// dealt with say so in Fixed.
func (h *Host) Fix(ctx context.Context, name string, p Purpose) (Report, error) {
	look := func() (Report, error) {
		if p == ForAny {
			return h.Examine(ctx, name)
		}
		return h.Preflight(ctx, name, p)
	}
	before, err := look()
	if err != nil {
		return before, err
	}
	treated := h.treat(ctx, name, before)
	if len(treated) == 0 {
		return before, nil
	}
	after, err := look()
	if err != nil {
		return before, err
	}
	return after.with(treated), nil
}

// treat applies what there is. Of one kind of cure for the whole container each
// finding says the same, and it is applied once.
func (h *Host) treat(ctx context.Context, name string, r Report) []Finding {
	var treated []Finding
	for _, f := range r.Findings {
		if f.Process == nil || f.Status == Pass {
			continue
		}
		cure, ok := remedies[f.Process.Code]
		if !ok {
			continue
		}
		did, left, err := cure(ctx, h, name, *f.Process)
		switch {
		case err != nil:
			f.Fixed = "tried in vain: " + err.Error()
		case left != "":
			f.Fixed = did + "; what is left: " + left
		default:
			f.Fixed = did
		}
		treated = append(treated, f)
	}
	return treated
}

// with says of the findings that were treated what was done, those that are gone
// being passed.
func (r Report) with(treated []Finding) Report {
	for _, t := range treated {
		same := func(f Finding) bool {
			return f.Process != nil && f.Process.Code == t.Process.Code && f.Process.HostPID == t.Process.HostPID && f.Process.FD == t.Process.FD
		}
		if i := slices.IndexFunc(r.Findings, same); i >= 0 {
			r.Findings[i].Fixed = t.Fixed
			continue
		}
		t.Status, t.Cure, t.Process = Pass, "", nil
		r.Findings = append(r.Findings, t)
	}
	return r
}

// continueStopped lets a stopped process go on. The signal goes through a
// descriptor that was taken before the process was looked at again: what the number
// may stand for by now is not hit.
func continueStopped(_ context.Context, h *Host, name string, f preflight.Finding) (did, left string, err error) {
	l, err := h.Containers.Live(name)
	if err != nil {
		return "", "", err
	}
	fd, err := unix.PidfdOpen(f.HostPID, 0)
	if err != nil {
		return "", "", fmt.Errorf("process %d: %w", f.PID, err)
	}
	defer unix.Close(fd)
	pids, err := l.Group.PIDs()
	if err != nil {
		return "", "", err
	}
	if !slices.Contains(pids, f.HostPID) {
		return "", "", fmt.Errorf("process %d: %w", f.PID, unix.ESRCH)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGCONT, nil, 0); err != nil {
		return "", "", fmt.Errorf("continue process %d: %w", f.PID, err)
	}
	return fmt.Sprintf("continued process %d (%s)", f.PID, f.Command), "", nil
}

// turnMPTCPOff sets the network settings that a container is born with, of which
// that is one. Sockets that are open stay what they are.
func turnMPTCPOff(ctx context.Context, h *Host, name string, f preflight.Finding) (did, left string, err error) {
	if _, err := h.Containers.RepairNetwork(ctx, name); err != nil {
		return "", "", err
	}
	return "net.mptcp.enabled is 0, new sockets are plain TCP",
		fmt.Sprintf("process %d (%s) has to be restarted to give its MPTCP socket up", f.PID, f.Command), nil
}
