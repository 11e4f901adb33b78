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
	"golang.org/x/sys/unix"
)

// What goes wrong during a snapshot, a rollback, a suspend or a resume: each test
// is one thing, done to a container with a client whose writes are counted.

// matrix is a site with the command line tool, for its exit codes, and one
// running container with a client.
type matrix struct {
	*site
	cli *rig
	l   *ledger
	// witness is connected since before.
	witness *line
	init    int
	criu    string // the real one
}

func newMatrix(t *testing.T, mib int, setUp ...func(*site)) *matrix {
	t.Helper()
	binary := open(t).binary
	m := &matrix{site: newSite(t, setUp...)}
	m.cli = &rig{binary: binary, state: m.state, run: m.run}
	m.start(t, m.ledgerRequest(mainName, mib))
	return m
}

// start makes the container.
func (m *matrix) start(t *testing.T, req childRequest) {
	t.Helper()
	m.must(t, req)
	m.must(t, childRequest{Op: "start", Name: mainName})
	m.l = newLedger(req.Address)
	m.l.settle(t)
	for range 20 {
		if err := m.l.add(); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dialLedger(m.l.addr)
	if err != nil {
		t.Fatal(err)
	}
	m.witness = conn
	t.Cleanup(func() { conn.conn.Close() })
	m.init = m.info(t, mainName).Run.PID
}

// wantCode runs ctctl and wants an exit code and words in its message.
func (m *matrix) wantCode(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	res := m.cli.try(t, args...)
	if res.code != code {
		t.Errorf("exit code %d wanted\n%v\n%s", code, res, m.logs())
	}
	for word := range strings.FieldsSeq(words) {
		if !strings.Contains(res.stderr, word) {
			t.Errorf("the message does not have %q:\n%s", word, res.stderr)
		}
	}
}

// wantUntouched wants the same init, serving, all that was acknowledged, the
// same connection, and nothing left over.
func (m *matrix) wantUntouched(t *testing.T) {
	t.Helper()
	if run := m.info(t, mainName).Run; run == nil || run.PID != m.init {
		t.Errorf("init was %d, now it is %+v", m.init, run)
	}
	m.wantAsBefore(t)
}

// wantAsBefore is for a container that was ended and came back.
func (m *matrix) wantAsBefore(t *testing.T) {
	t.Helper()
	if got := m.status(t, mainName); got != container.Running {
		t.Fatalf("the container is %s", got)
	}
	if _, err := m.witness.askWithin("show", ioTimeout); err != nil {
		t.Errorf("the connection has not survived: %v", err)
	}
	m.l.settle(t)
	m.wantClean(t)
	if again := m.must(t, childRequest{Op: "repair"}); len(again.Done) > 0 {
		t.Errorf("repair had something to do: %v", again.Done)
	}
}

// tell has the container do something that a checkpoint may stumble over.
func (m *matrix) tell(t *testing.T, what string) {
	t.Helper()
	answer, err := m.witness.askWithin(what, time.Minute)
	if err != nil || strings.HasPrefix(answer, "error") {
		t.Fatalf("%s: %q, %v", what, answer, err)
	}
}

func (s *site) mountSmall(t *testing.T, dir string, mib int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// smallSnapshots keeps images where there is little room.
func smallSnapshots(t *testing.T, mib int) func(*site) {
	return func(s *site) {
		dir := filepath.Join(s.state, "snapshots")
		s.mountSmall(t, dir, mib)
		s.foreign["mount "+dir] = true
	}
}

func TestASnapshotThatDoesNotFitIsRefusedBeforeTheFreeze(t *testing.T) {
	m := newMatrix(t, 64, smallSnapshots(t, 40))
	for _, op := range [][]string{{"snapshot", "create", mainName, "one"}, {"suspend", mainName}} {
		m.wantCode(t, 9, "room", op...)
		m.wantUntouched(t)
	}
}

func TestARollbackWithoutRoomForTheWayBackIsRefused(t *testing.T) {
	m := newMatrix(t, 32, smallSnapshots(t, 64))
	m.must(t, childRequest{Op: "snapshot", Name: mainName, Snap: "one"})
	m.wantCode(t, 9, "room", "rollback", mainName, "one")
	m.wantUntouched(t)
}

// What the container keeps in a tmpfs is not among its processes' memory.
func TestASnapshotThatRunsOutOfRoomLeavesTheContainerGoingOn(t *testing.T) {
	m := newMatrix(t, 1, smallSnapshots(t, 40))
	m.tell(t, "fill /dev/shm/large 60")
	for _, op := range [][]string{{"snapshot", "create", mainName, "one"}, {"suspend", mainName}} {
		res := m.cli.try(t, op...)
		if res.code != 10 && res.code != 9 {
			t.Errorf("exit code 10 or 9 wanted: %v", res)
		}
		m.wantUntouched(t)
	}
	m.tell(t, "fill /dev/shm/large 0")
	m.wantCode(t, 0, "", "snapshot", "create", mainName, "one")
}

func TestASnapshotInAFullPoolIsRefused(t *testing.T) {
	m := newMatrix(t, 1, func(s *site) {
		s.mountSmall(t, s.state, 420)
		s.foreign["mount "+s.state] = true
		settings := `{"kind":"host","version":1,"data":{"storage":"btrfs","poolBytes":268435456,` +
			`"autoIPv4":"10.157.0.0/16","autoIPv6":"fd9c:7c71:9d::/64"}}`
		if err := os.WriteFile(filepath.Join(s.state, "host.json"), []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	m.tell(t, "fill /large 400")
	m.wantCode(t, 9, "free", "snapshot", "create", mainName, "one")
	m.tell(t, "fill /large 0")
	m.wantUntouched(t)
}

func TestAProcessThatIsTracedIsNamedBeforeTheFreeze(t *testing.T) {
	m := newMatrix(t, 1)
	m.tell(t, "trace")
	for _, op := range [][]string{{"snapshot", "create", mainName, "one"}, {"suspend", mainName}} {
		m.wantCode(t, 8, "traced ledger", op...)
		m.wantUntouched(t)
	}
	m.tell(t, "untrace")
	m.wantCode(t, 0, "", "snapshot", "create", mainName, "one")
	m.wantUntouched(t)
}

func TestASnapshotOfAContainerThatIsShortOfMemory(t *testing.T) {
	m := &matrix{site: newSite(t)}
	m.cli = &rig{binary: open(t).binary, state: m.state, run: m.run}
	req := m.ledgerRequest(mainName, 8)
	req.MemoryBytes = 128 << 20
	m.start(t, req)
	for i := range 4 {
		for range 6 {
			m.tell(t, "hog")
		}
		// A hog may just be ending, which is a reason not to be dumped.
		res := m.cli.try(t, "snapshot", "create", mainName, fmt.Sprintf("s%d", i))
		if res.code != 0 && res.code != 10 {
			t.Errorf("exit code 0 or 10 wanted: %v", res)
		}
		m.wantUntouched(t)
	}
}

func TestTwoCommandsOnOneContainerAtOnce(t *testing.T) {
	m := newMatrix(t, 32)
	ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
	defer cancel()
	c, err := m.spawn(ctx, childRequest{Op: "snapshot", Name: mainName, Snap: "one"})
	if err != nil {
		t.Fatal(err)
	}
	err = awaitProc(c, func() ([]proc, error) { return m.criuOf(c, mainName) })
	if err == nil {
		err = c.cmd.Process.Signal(unix.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	holder := fmt.Sprint(c.cmd.Process.Pid)
	for _, op := range [][]string{{"stop", mainName}, {"snapshot", "create", mainName, "two"}, {"destroy", "--force", mainName}} {
		m.wantCode(t, 6, holder+" snapshot", op...)
	}
	if err := c.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r, err := c.reply(); err != nil || r.Error != "" {
		t.Errorf("the first one: %v %v", r, err)
	}
	m.wantUntouched(t)
}
