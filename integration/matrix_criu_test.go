package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"golang.org/x/sys/unix"
)

// fakeCRIU puts a program in CRIU's place that is CRIU, but fails as often as is
// said: at dumps, which ctctl itself does, and at restores, which supervisors do.
func (m *matrix) fakeCRIU(t *testing.T, dumps, restores int) {
	t.Helper()
	if m.criu == "" {
		engine, err := criu.Find("")
		if err != nil {
			t.Fatal(err)
		}
		m.criu = engine.Binary
	}
	path := filepath.Join(m.base, "criu")
	script := fmt.Sprintf(`#!/bin/sh
case " $* " in *" swrk "*)
	kind=dumps
	if grep -q supervise /proc/$PPID/cmdline; then kind=restores; fi
	read -r left <%[1]s.$kind
	if [ "$left" -gt 0 ]; then
		echo $((left - 1)) >%[1]s.$kind
		exit 1
	fi
esac
exec %[2]s "$@"
`, path, m.criu)
	for name, text := range map[string]string{"": script, ".dumps": fmt.Sprintln(dumps), ".restores": fmt.Sprintln(restores)} {
		if err := os.WriteFile(path+name, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(criu.EnvBinary, path)
}

func TestARollbackThatCannotRestoreLeavesTheContainerAsItWas(t *testing.T) {
	m := newMatrix(t, 8)
	m.must(t, childRequest{Op: "snapshot", Name: mainName, Snap: "one"})
	m.l.settle(t)
	m.fakeCRIU(t, 0, 1)
	m.wantCode(t, 11, "running", "rollback", mainName, "one")
	m.wantAsBefore(t)
	m.wantCode(t, 0, "", "rollback", mainName, "one")
}

func TestARollbackWithNoWayBackKeepsTheMemoryInAnImage(t *testing.T) {
	m := newMatrix(t, 8)
	m.must(t, childRequest{Op: "snapshot", Name: mainName, Snap: "one"})
	m.l.settle(t)
	m.fakeCRIU(t, 0, 2)
	m.wantCode(t, 11, "suspended", "rollback", mainName, "one")
	if got := m.status(t, mainName); got != container.Suspended {
		t.Fatalf("the container is %s", got)
	}
	m.wantClean(t)
	m.wantCode(t, 0, "", "resume", mainName)
	m.wantAsBefore(t)
}

func TestAResumeThatFailsCanBeTriedAgain(t *testing.T) {
	m := newMatrix(t, 8)
	m.must(t, childRequest{Op: "suspend", Name: mainName})
	m.fakeCRIU(t, 0, 2)
	for range 2 {
		m.wantCode(t, 11, "suspended", "resume", mainName)
		if got := m.status(t, mainName); got != container.Suspended {
			t.Fatalf("the container is %s", got)
		}
		m.wantClean(t)
	}
	m.wantCode(t, 0, "", "resume", mainName)
	m.wantAsBefore(t)
}

func TestADumpThatFailsAtOnceIsNoHarm(t *testing.T) {
	m := newMatrix(t, 8)
	for _, op := range [][]string{{"snapshot", "create", mainName, "one"}, {"suspend", mainName}} {
		m.fakeCRIU(t, 20, 0) // the look at the kernel's features before it too
		m.wantCode(t, 10, "", op...)
		m.wantUntouched(t)
	}
}

func TestACRIUThatHangsIsEndedAndTheContainerGoesOn(t *testing.T) {
	m := newMatrix(t, 96)
	injuries := 0
	for _, op := range []string{"snapshot", "suspend", "snapshot"} {
		for {
			m.hang(t, childRequest{Op: op, Name: mainName, Snap: "one", Deadline: time.Second})
			if m.status(t, mainName) != container.Stopped {
				break
			}
			// To be ended inside a process is what that does not always survive.
			if injuries++; injuries > 3 {
				t.Fatal("a CRIU that hangs takes the container along each time")
			}
			m = newMatrix(t, 96)
		}
		m.wantUntouched(t)
	}
}

// hang stops CRIU while it writes memory. (Where it has just put its own code in
// a process's way, nobody could bring that process back.)
func (m *matrix) hang(t *testing.T, req childRequest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
	defer cancel()
	c, err := m.spawn(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	pages := filepath.Join(m.state, "snapshots", m.info(t, mainName).Config.UID, "*.tmp", "images", "pages-1.img")
	for found := []string(nil); len(found) == 0 && c.running(); time.Sleep(200 * time.Microsecond) {
		if found, err = filepath.Glob(pages); err != nil {
			t.Fatal(err)
		}
	}
	found, err := m.criuOf(c, mainName)
	if err != nil || len(found) == 0 {
		t.Fatalf("no CRIU: %v", err)
	}
	if err := unix.Kill(found[0].pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r, err := c.reply()
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "dump" || !strings.Contains(r.Error, "deadline") {
		t.Errorf("%s with a CRIU that hangs: %v", req.Op, r)
	}
	if c.took > req.Deadline+5*time.Second {
		t.Errorf("it took %v", c.took)
	}
}
