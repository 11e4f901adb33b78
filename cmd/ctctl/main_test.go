package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	testscript.Main(m, map[string]func(){"ctctl": main})
}

// code runs a command and compares how it ends: code 2 ctctl list --bogus.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	got := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){"code": code}

// noHost is where a state root can't be: a script that names it must not come to
// open the host.
const noHost = "/proc/no-host"

func TestWrongCallsAreRefusedBeforeTheHostIsOpened(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/usage",
		RequireUniqueNames: true,
		Cmds:               scriptCommands,
		Setup: func(e *testscript.Env) error {
			e.Setenv("CTCTL_STATE_ROOT", noHost)
			e.Setenv("CTCTL_RUN_ROOT", noHost)
			return nil
		},
	})
}

func TestContainersThatDoNotRun(t *testing.T) {
	testutil.Require(t, testutil.Root)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/host",
		RequireUniqueNames: true,
		Cmds:               scriptCommands,
		Setup: func(e *testscript.Env) error {
			dir := testutil.TempDir(t)
			e.Setenv("CTCTL_STATE_ROOT", dir+"/state")
			e.Setenv("CTCTL_RUN_ROOT", dir+"/run")
			e.Setenv("CTCTL_STORAGE", "dir")
			e.Setenv("TZ", "UTC")
			return os.Mkdir(dir+"/run", 0o711)
		},
	})
}
