package criu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDescriptorAndTheProcessAreFoundInRealLogs(t *testing.T) {
	tests := map[string]struct {
		fd   int
		text string
	}{
		"mptcp":            {3, "criu dump: MPTCP socket: pid 20550 (probe) descriptor 3: "},
		"userfaultfd":      {3, " descriptor 3: "},
		"control-messages": {4, " descriptor 4: "},
		"in-flight":        {3, " descriptor 3: "},
		"ghost-too-large":  {3, " descriptor 3: "},
		"memfd-secret":     {3, " descriptor 3: "},
		// They were not told of one by one yet.
		"io-uring":     {-1, "descriptor that cannot be passed on"},
		"traced-task":  {-1, "pid 2884"},
		"nested-netns": {-1, "nested network namespace: net: "},
		"pid-taken":    {-1, "process that cannot be made"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newError("dump", filepath.Join("testdata/logs", name+".log"), nil, errRefused)
			if e.FD != tt.fd || !strings.Contains(withoutName(e), withoutProbe(tt.text)) {
				t.Errorf("descriptor %d, %q", e.FD, e.Error())
			}
		})
	}
}

// withoutName and withoutProbe leave out the names of the programs that the logs
// were made with.
func withoutName(e *Error) string {
	plain := *e
	plain.Command = ""
	return plain.Error()
}

func withoutProbe(s string) string { return strings.ReplaceAll(s, " (probe)", "") }

func TestTheCommandIsTakenFromTheLogOfADump(t *testing.T) {
	log := "(00.1) Dumping task (pid: 12 comm: other)\n(00.1) Dumping task (pid: 123 comm: a) b\x1b)\n" +
		"(00.2) 123 fdinfo 7: pos: 0\n(00.2) Error (criu/sk-queue.c:144): skqueue: Control messages in queue, not supported\n" +
		"(00.2) Error (criu/cr-dump.c:1545): Dump files (pid: 123) failed with -1\n"
	e := newError("dump", "", []byte(log), errRefused)
	if e.Command != `a) b\x1b` || e.PID != 123 || e.FD != 7 {
		t.Errorf("%+v", e)
	}
	if want := `pid 123 (a) b\x1b) descriptor 7: unread datagram with credentials or descriptors`; e.Reason() != want {
		t.Errorf("reason %q", e.Reason())
	}
}

func TestAFailedRestoreNamesWhoWroteTheError(t *testing.T) {
	log := "(00.1)     45: Error (criu/files-reg.c:2380): File var/lib/x has bad size 7 (expect 3)\n" +
		"(00.1)     45: Error (criu/files.c:1221): Unable to open fd=5 id=0x9\n"
	e := newError("restore", "", []byte(log), errRefused)
	if e.PID != 45 || e.FD != 5 || e.Object != "file that has changed size since" {
		t.Errorf("%+v", e)
	}
}

func TestTheCureNamesTheProcessInside(t *testing.T) {
	e := &Error{Op: "dump", PID: os.Getpid(), FD: -1, Cure: cureStopUser}
	identifyLive(e)
	if e.InnerPID == 0 || e.Command == "" || !strings.HasPrefix(e.Cure, "ctctl exec NAME kill ") {
		t.Errorf("%+v", e)
	}
	if n := innerPID("Name:\tx\nNSpid:\t4711\t12\t3\n"); n != 3 {
		t.Errorf("inner pid %d", n)
	}
	for _, bad := range []string{"", "NSpid:", "NSpid:\tx"} {
		if n := innerPID(bad); n != 0 {
			t.Errorf("%q: %d", bad, n)
		}
	}
}
