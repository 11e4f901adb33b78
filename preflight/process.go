package preflight

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one as it was when it was found.
type process struct {
	pid     int   // as the caller sees it
	pids    []int // from the caller's namespace down to its own
	inner   int   // as the container sees it; 0 if it does not
	comm    string
	state   byte // of the first thread: R S D T t Z X I
	parent  int  // as the caller sees it
	tracer  int
	session []int // leader of its session, like pids
	threads int
	others  []*process // its threads but the first
	anon    int64      // resident anonymous memory in bytes
	shmem   int64      // resident shared memory in bytes
	unit    string
	path    string // /proc/PID
	mnt     string // mount namespace
}

func (p *process) ended() bool { return p.state == 'Z' || p.state == 'X' }

// parseStatus reads proc_pid_status(5).
func parseStatus(b []byte) (p process) {
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "Name":
			p.comm = printable(unescapeName(string(value)))
		case "State":
			if len(value) > 0 {
				p.state = value[0]
			}
		case "Pid":
			p.pid = number(value)
		case "PPid":
			p.parent = number(value)
		case "TracerPid":
			p.tracer = number(value)
		case "NSpid":
			p.pids = fields(value)
		case "NSsid":
			p.session = fields(value)
		case "Threads":
			p.threads = number(value)
		case "RssAnon":
			p.anon = kib(value)
		case "RssShmem":
			p.shmem = kib(value)
		}
	}
	return p
}

// unescapeName undoes what the kernel does to newlines and backslashes.
func unescapeName(s string) string {
	return strings.NewReplacer(`\n`, "\n", `\\`, `\`).Replace(s)
}

// number is 0 for what is none.
func number(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return n
}

// fields reads a line of ids, one for each namespace.
func fields(b []byte) (ids []int) {
	for _, f := range bytes.Fields(b) {
		ids = append(ids, number(f))
	}
	return ids
}

// at is the id in the namespace of a depth, 0 if it has none there.
func at(ids []int, depth int) int {
	if depth < 1 || depth > len(ids) {
		return 0
	}
	return ids[depth-1]
}

func kib(b []byte) int64 {
	digits, _, _ := bytes.Cut(b, []byte(" "))
	return int64(number(digits)) << 10
}

// dying says that all threads of a process are about to end: on a busy machine
// they do not all come to it at once. path is /proc/PID.
func dying(r *reader, path string) bool {
	tids, err := names(path + "/task")
	for _, tid := range tids {
		status, err := r.read(path+"/task/"+tid+"/status", mostStatus)
		if err != nil {
			continue // it has ended
		}
		if killed(status) {
			continue
		}
		stat, err := r.read(path+"/task/"+tid+"/stat", mostStatus)
		if err == nil && !exiting(stat) {
			return false
		}
	}
	return err == nil
}

// killed says that a thread has ended, or has still to see that it was killed, as
// at the end of a process every thread is.
func killed(status []byte) bool {
	for line := range bytes.Lines(status) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(key) {
		case "State":
			if len(value) > 0 && (value[0] == 'Z' || value[0] == 'X') {
				return true
			}
		case "SigPnd":
			n, err := strconv.ParseUint(string(value), 16, 64)
			return err == nil && n&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return false
}

// exiting reads a thread's flags, the ninth field of proc_pid_stat(5).
func exiting(stat []byte) bool {
	const flagExiting = 4                                      // PF_EXITING of linux/sched.h
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before may have spaces
	if len(f) < 7 || !bytes.Contains(stat, []byte(") ")) {
		return false
	}
	flags, err := strconv.ParseUint(string(f[6]), 10, 64)
	return err == nil && flags&flagExiting != 0
}
