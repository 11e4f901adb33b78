package criu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// identifyLive adds to the error of a failed dump how the container sees the
// process, which goes on. What can't be found out is left out.
func identifyLive(err error) {
	var e *Error
	if !errors.As(err, &e) || e.PID == 0 {
		return
	}
	b, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.PID))
	if rerr != nil {
		return
	}
	e.InnerPID = innerPID(string(b))
	if comm, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/comm", e.PID)); rerr == nil && e.Command == "" {
		e.Command = escape(strings.TrimSuffix(string(comm), "\n"))
	}
	if e.Cure == cureStopUser && e.InnerPID > 1 {
		e.Cure = fmt.Sprintf("ctctl exec NAME kill %d (%s), or turn that use off in its configuration, and try again", e.InnerPID, e.Command)
	}
}

// innerPID is the last of a status file's NSpid, proc_pid_status(5): the pid in the
// innermost namespace.
func innerPID(status string) int {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		if words := strings.Fields(rest); len(words) > 0 {
			if n, err := strconv.Atoi(words[len(words)-1]); err == nil {
				return n
			}
		}
	}
	return 0
}

// identifyDumped adds to the error of a failed restore the name of the process in
// the images.
func identifyDumped(err error, images string) {
	var e *Error
	if !errors.As(err, &e) || e.PID == 0 {
		return
	}
	core, rerr := readCore(filepath.Join(images, fmt.Sprintf("core-%d.img", e.PID)))
	if rerr != nil {
		return
	}
	e.InnerPID = e.PID
	if e.Command = escape(core.GetThreadCore().GetComm()); e.Command == "" {
		e.Command = escape(core.GetTc().GetComm())
	}
}

// opening is what a process says that could not restore a descriptor.
var opening = regexp.MustCompile(`^Unable to open fd=(\d+) `)

// descriptorOf finds which one a failure is about, -1 for none: on a dump the last
// that was told of, if it was the files of the process that could not be saved.
func descriptorOf(block []logLine, pid int) int {
	files := fmt.Sprintf("Dump files (pid: %d) failed", pid)
	for i, l := range block {
		if m := opening.FindStringSubmatch(l.message); m != nil && i > 0 {
			return number([]byte(m[1]))
		}
		if strings.Contains(l.message, "send_fds") {
			return -1 // it came before they were told of one by one
		}
		if strings.HasPrefix(l.message, files) && block[0].at.pid == pid && pid > 0 {
			return block[0].at.fd
		}
	}
	return -1
}

// commandOf finds the name of a process in the log of a dump.
func commandOf(log []byte, pid int) string {
	mark := fmt.Appendf(nil, "Dumping task (pid: %d comm: ", pid)
	_, rest, ok := bytes.Cut(log, mark)
	if pid == 0 || !ok {
		return ""
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return escape(strings.TrimSuffix(string(line), ")"))
}
