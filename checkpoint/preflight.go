package checkpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// checkTasks refuses, before anything is frozen, what CRIU is known to wait for
// in vain: a process can have one tracer only (ptrace(2)), and seizing one that
// has another does not fail but takes until the deadline.
func (c *cut) checkTasks() error {
	pids, err := c.group.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		name, tracer := taskStatus(pid)
		if tracer <= 0 {
			continue
		}
		by, _ := taskStatus(tracer)
		return fmt.Errorf("%w: process %d (%s) is traced by process %d (%s): end that debugger or strace and try again",
			ErrUndumpable, pid, name, tracer, by)
	}
	return nil
}

// taskStatus reads a process's name and tracer; zero of one that has ended. The
// kernel escapes the name.
func taskStatus(pid int) (name string, tracer int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", 0
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			name = value
		case "TracerPid":
			tracer, _ = strconv.Atoi(value) // the kernel's own number
			return name, tracer
		}
	}
	return name, 0
}
