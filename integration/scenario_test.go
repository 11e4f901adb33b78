package integration_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScenarios runs testdata/*.txtar: what a user types, and what must come of
// it. Each script has containers of its own, named $C, $C-2 and so on, with the
// addresses $IP and $IP2 for the first, and these commands besides testscript's own:
//
//	code N command…       the command must end with exit code N
//	eventually command…   the command must succeed within a while
//	redis HOST command…   one redis command, sent from outside; its reply is stdout
func TestScenarios(t *testing.T) {
	r := open(t)
	bin := filepath.Join(os.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(r.binary, filepath.Join(bin, "ctctl")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeTree(t, bin) })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			n := boxes.Add(1)
			name := fmt.Sprintf("box-%d", n)
			e.Vars = append(e.Vars,
				"PATH="+bin+":"+os.Getenv("PATH"), "CTCTL_STATE_ROOT="+r.state, "CTCTL_RUN_ROOT="+r.run,
				"C="+name, "IP="+boxAddr(n), "IP2="+strings.Replace(boxAddr(n), "10.99.", "10.98.", 1), "CTCTL_CRIU="+os.Getenv("CTCTL_CRIU"))
			e.Defer(func() { r.destroyAll(t, name) })
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": scriptCode, "eventually": scriptEventually, "redis": scriptRedis,
		},
	})
}

// destroyAll removes what a script has left.
func (r *rig) destroyAll(t *testing.T, prefix string) {
	found, err := filepath.Glob(filepath.Join(r.state, "containers", prefix+"*"))
	if err != nil {
		t.Error(err)
	}
	for _, dir := range found {
		name := filepath.Base(dir)
		if name != prefix && !strings.HasPrefix(name, prefix+"-") {
			continue
		}
		r.end(t, name)
	}
}

func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually command…")
	}
	var err error
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = ts.Exec(args[0], args[1:]...); err == nil {
			return
		}
	}
	ts.Fatalf("%v\n%s%s", err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

func scriptRedis(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: redis HOST command…")
	}
	reply, err := askRedis(args[0], strings.Join(args[1:], " "))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	fmt.Fprintln(ts.Stdout(), reply)
}

// askRedis waits until the server serves.
func askRedis(host, command string) (reply string, err error) {
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		conn, dialErr := net.DialTimeout("tcp", host+":6379", dialTimeout)
		if dialErr != nil {
			err = dialErr
			continue
		}
		defer conn.Close()
		return redis{newLine(conn)}.do(command)
	}
	return "", err
}
