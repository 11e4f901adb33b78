package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The logs are the ends of real ones, of CRIU 4.2.1 on Linux 6.18.
func TestTheCauseIsFoundInRealLogs(t *testing.T) {
	tests := map[string]struct {
		line      string // the first decisive one
		pid       int
		object    string
		transient bool
	}{
		"mptcp":                  {"inet: Unsupported proto 262 for socket 1f88c", 20550, "MPTCP socket", false},
		"io-uring":               {"send_fds failed (-22)", 20711, "descriptor that cannot be passed on, such as of io_uring", false},
		"ghost-too-large":        {"Can't dump ghost file /var/tmp/ghost.12619 of 3145728 size, increase limit", 12619, "deleted file that is still open and too large", false},
		"tcp-established":        {"inet: Connected TCP socket, consider using --tcp-established option.", 14327, "established TCP connection", false},
		"in-flight":              {"inet: In-flight connection (l) for 21258", 15806, "connection that was not accepted yet", true},
		"control-messages":       {"skqueue: Control messages in queue, not supported", 16057, "unread datagram with credentials or descriptors", true},
		"vsock":                  {"sockets: BUG! Unknown socket collected (family 40)", 6325, "VSOCK socket", false},
		"userfaultfd":            {"Can't dump file 3 of that type [600] (anon anon_inode:[userfaultfd])", 27619, "userfaultfd", false},
		"perf-event":             {"Can't dump file 3 of that type [600] (anon anon_inode:[perf_event])", 28004, "perf event", false},
		"bpf-map":                {"Can't dump file 3 of that type [600] (anon anon_inode:bpf-map)", 28213, "bpf program, map or link", false},
		"memfd-secret":           {"Can't lookup mount=15 for fd=3 path=/secretmem (deleted)", 28378, "memfd_secret", false},
		"file-lock":              {"Some file locks are hold by dumping tasks! You can try --file-locks to dump them.", 0, "file lock", false},
		"traced-task":            {"Unseizable non-zombie 2884 found, state t, err -1/10", 2884, "process that is being traced", false},
		"nested-netns":           {"net: Unable to dump more than one netns if the --emptyns is set", 0, "nested network namespace", false},
		"nested-pidns":           {"Can't dump nested pid namespace for 8325", 8325, "nested pid namespace", false},
		"nested-userns":          {"Can't dump nested user namespace for 9324", 9324, "nested user namespace", false},
		"rlimit-of-another-user": {"Can't get rlimit 0: Operation not permitted", 6162, "process of another user", false},
		"bad-size":               {"File var/tmp/counters.db has bad size 7 (expect 3)", 0, "file that has changed size since", false},
		"missing-file":           {"Can't open file var/tmp/counters.db on restore: No such file or directory", 0, "file that is missing", false},
		"pid-taken":              {"Can't fork for 15239: File exists", 0, "process that cannot be made: its pid is taken or there are too many", false},
		"image-cut-off":          {"Read 8 bytes while 107 expected from /srv/images/files.img: No such file or directory", 0, "image that is cut off", false},
	}
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(files) != len(tests) {
		t.Errorf("%d logs and %d tests, %v", len(files), len(tests), err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newError("dump", filepath.Join("testdata/logs", name+".log"), nil, errRefused)
			if len(e.Lines) == 0 || e.Lines[0] != tt.line {
				t.Errorf("lines are %q, want first %q", e.Lines, tt.line)
			}
			if e.PID != tt.pid || e.Object != tt.object || e.Transient() != tt.transient {
				t.Errorf("pid %d, object %q, transient %v", e.PID, e.Object, e.Transient())
			}
			if e.Cure == "" {
				t.Error("no cure")
			}
			for _, line := range e.Lines {
				if strings.Contains(line, "RLIMIT_NOFILE") {
					t.Errorf("%q is harmless", line)
				}
			}
		})
	}
}

func TestDiagnoseOfMadeUpLogs(t *testing.T) {
	far := strings.Repeat("(00.2) something else\n", blockGap+1)
	tests := map[string]struct {
		log  string
		want []string
		pid  int
	}{
		"empty":         {"", nil, 0},
		"no errors":     {"(00.1) Warn  (criu/x.c:1): careful\n", nil, 0},
		"only harmless": {"(00.1) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n", nil, 0},
		"only the end":  {"(00.1) Error (criu/cr-dump.c:1): Dumping FAILED.\n", []string{"Dumping FAILED."}, 0},
		"the last of two blocks": {
			"(00.1) Error (criu/a.c:1): first\n" + far + "(00.3) Error (criu/b.c:1): second\n(00.3) Error (criu/b.c:2): third\n" + far + "(00.4) Error (criu/c.c:1): Dumping FAILED.\n",
			[]string{"second", "third"},
			0,
		},
		"a failing cleanup after a known cause": {
			"(00.1) Error (criu/a.c:1): inet: Unsupported proto 262 for socket 1\n" + far + "(00.3) Error (criu/b.c:1): cannot tidy up\n",
			[]string{"inet: Unsupported proto 262 for socket 1", "cannot tidy up"},
			0,
		},
		"a warning when there is nothing else": {
			"(00.1) Warn  (compel/a.c:132): Unable to interrupt task: 30650 (Operation not permitted)\n" + far + "(00.3) Error (criu/b.c:1): Dumping FAILED.\n",
			[]string{"Unable to interrupt task: 30650 (Operation not permitted)"},
			30650,
		},
		"a warning beside the cause": {
			"(00.1) Warn  (compel/a.c:132): Unable to interrupt task: 30650 (Operation not permitted)\n(00.3) Error (criu/b.c:1): why\n",
			[]string{"why"},
			0,
		},
		"repeated lines":          {strings.Repeat("(00.1) Error (criu/a.c:1): again\n", 30), []string{"again"}, 0},
		"a line of the parasite":  {"pie: 1: Error (criu/pie/parasite.c:1): deep inside\n", []string{"deep inside"}, 0},
		"before there is a log":   {"Error (criu/a.c:1): early\n", []string{"early"}, 0},
		"a task of a restore":     {"(00.1)     17: Error (criu/a.c:1): Peer 3 unresolved for 4\n", []string{"Peer 3 unresolved for 4"}, 0},
		"another program's error": {"Error: Could not process rule: No such file or directory\n", nil, 0},
		"no line end":             {"(00.1) Error (criu/a.c:1): cut off here (pid: 12)", []string{"cut off here (pid: 12)"}, 12},
		"control characters":      {"(00.1) Error (criu/a.c:1): \x1b[2Jname\x00\xff\r\n", []string{`\x1b[2Jname\x00\xff`}, 0},
		"a pid that is no number": {"(00.1) Error (criu/a.c:1): (pid: 99999999999999999999)\n", []string{"(pid: 99999999999999999999)"}, 0},
		"a session from outside":  {"(00.1) Error (criu/cr-dump.c:1): A session leader of 77(7) is outside of its pid namespace\n", []string{"A session leader of 77(7) is outside of its pid namespace"}, 77},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := &Error{}
			e.diagnose([]byte(tt.log))
			if diff := cmp.Diff(tt.want, e.Lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			if e.PID != tt.pid {
				t.Errorf("pid is %d, want %d", e.PID, tt.pid)
			}
		})
	}
}

func TestASocketThatCannotBeBoundIsNamedByItsAddress(t *testing.T) {
	const log = "(00.4)      1: inet: \tRestore: family AF_INET    type SOCK_STREAM    proto IPPROTO_TCP      port 80 state TCP_LISTEN       src_addr 0.0.0.0\n" +
		"(00.4)      1: inet: \tRestore: family %s    proto IPPROTO_TCP      port 6379 state TCP_ESTABLISHED  src_addr %s\n(00.4)      1: tcp: Restoring\n" +
		"(00.4)      1: Error (soccr/soccr.c:499): Can't bind inet socket back: Cannot assign requested address\n" +
		"(00.4)      1: inet: \tRestore: family AF_INET    type SOCK_STREAM    proto IPPROTO_TCP      port 81 state TCP_LISTEN       src_addr 0.0.0.1\n"
	for family, address := range map[string]string{"AF_INET   type SOCK_STREAM": "10.99.0.4", "AF_INET6  type SOCK_STREAM": "fd00::4"} {
		e := &Error{}
		e.diagnose(fmt.Appendf(nil, log, family, address))
		if want := "socket of an address that is not here (" + address + ", port 6379)"; e.Object != want {
			t.Errorf("got %q, want %q", e.Object, want)
		}
		if !strings.Contains(e.Cure, "--ip-add") {
			t.Errorf("the cure is %q", e.Cure)
		}
	}
	e := &Error{}
	e.diagnose([]byte("(00.4)      1: Error (criu/sk-inet.c:1): Can't bind inet socket (id 3)\n"))
	if e.Object != "socket of an address that is not here" {
		t.Errorf("without its address it is %q", e.Object)
	}
}

func TestTheErrorSaysWhatMatters(t *testing.T) {
	tests := []struct {
		err  Error
		want string
	}{
		{Error{Op: "dump", Err: errRefused}, "criu dump: criu refused"},
		{Error{Op: "dump", Err: errRefused, Lines: []string{"why", "so"}, Log: "/l"}, "criu dump: why (log: /l)"},
		{
			Error{Op: "dump", Err: errRefused, Object: "perf event", PID: 7, FD: -1, Lines: []string{"Can't dump file"}},
			"criu dump: perf event: pid 7: Can't dump file",
		},
		{Error{Op: "restore", Err: errors.New("post-restore: no veth"), Lines: []string{"why"}}, "criu restore: post-restore: no veth: why"},
	}
	for _, tt := range tests {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestOnlyTheEndOfALongLogIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump.log")
	text := "(00.1) Error (criu/a.c:1): early\n" + strings.Repeat("x", 100) + "\n(00.2) Error (criu/a.c:1): late\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := readTail(path, 60)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(b); got != "(00.2) Error (criu/a.c:1): late\n" {
		t.Errorf("the tail is %q", got)
	}
}

func FuzzDiagnose(f *testing.F) {
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("(00.1) Error (criu/a.c:1): \x1b[2J\xff"))
	f.Fuzz(func(t *testing.T, log []byte) {
		e := &Error{Op: "dump", Err: errRefused}
		e.diagnose(log)
		if len(e.Lines) > mostLines {
			t.Errorf("%d lines", len(e.Lines))
		}
		if text := e.Error() + strings.Join(e.Lines, ""); !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			t.Errorf("%q is not fit to print", text)
		}
		if e.PID < 0 {
			t.Errorf("pid %d", e.PID)
		}
	})
}
