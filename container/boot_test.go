package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestASystemComesBackAfterAReboot(t *testing.T) {
	system, command := Config{Init: "/sbin/init"}, Config{Command: []string{"sh"}}
	for _, c := range []struct {
		config Config
		policy string
		code   int
		want   bool
	}{
		{system, "no", rebootExit, true},
		{system, "always", rebootExit, true},
		{system, "always", powerOffExit, false},
		{system, "on-failure", powerOffExit, false},
		{system, "no", 1, false},
		{system, "on-failure", 137, true},
		{system, "on-failure", 0, false},
		{system, "always", 0, true},
		{command, "no", rebootExit, false}, // it may answer any number
		{command, "on-failure", powerOffExit, true},
		{command, "on-failure", 0, false},
		{command, "always", 0, true},
	} {
		c.config.Restart = c.policy
		if got := wantsRestart(c.config, Exit{Code: c.code}); got != c.want {
			t.Errorf("system %v, policy %s, code %d: restarted %v, want %v", c.config.System(), c.policy, c.code, got, c.want)
		}
	}
}

func TestTheUsualStopSignalDependsOnTheInit(t *testing.T) {
	for _, c := range []struct {
		system  bool
		program string
		want    syscall.Signal
	}{
		{true, "systemd", 37}, // SIGRTMIN+3
		{true, "busybox", unix.SIGUSR2},
		{true, "init", 0}, // sysvinit: poweroff(8)
		{true, "openrc-init", 0},
		{false, "systemd", unix.SIGTERM},
		{false, "redis-server", unix.SIGTERM},
	} {
		if got := usualStop(c.system, c.program); got != c.want {
			t.Errorf("system %v, %s: signal %d, want %d", c.system, c.program, got, c.want)
		}
	}
}

func TestOnlyTheLineOfANotificationCounts(t *testing.T) {
	for text, want := range map[string]bool{
		"READY=1":                          true,
		"READY=1\nSTATUS=Startup finished": true,
		"STATUS=booting\nREADY=1\n":        true,
		"STATUS=READY=1":                   false,
		"READY=10":                         false,
		"READY=0":                          false,
		"":                                 false,
		"X_SYSTEMD_UNIT_ACTIVE=a.service":  false,
	} {
		if got := isReady([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// notifyPair is the supervisor's end of a socket, and how to send to it.
func notifyPair(t *testing.T) (*net.UnixConn, func(text string, files ...*os.File)) {
	t.Helper()
	name := filepath.Join(testutil.TempDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) }), err)
	if err != nil {
		t.Fatal(err)
	}
	return conn, func(text string, files ...*os.File) {
		t.Helper()
		out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(out)
		var rights []byte
		for _, f := range files {
			rights = append(rights, unix.UnixRights(int(f.Fd()))...)
		}
		if err := unix.Sendmsg(out, []byte(text), rights, &unix.SockaddrUnix{Name: name}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANoticeCountsOnlyFromInit(t *testing.T) {
	conn, send := notifyPair(t)
	heard := make(chan bool)
	go func() { heard <- awaitNotice(conn, os.Getpid()+1) }()
	send("READY=1")
	send("STATUS=still here")
	select {
	case <-heard:
		t.Error("the notice of another process counted")
	case <-time.After(20 * notifyPause): // both have been read by then, or the next line fails
	}
	conn.Close()
	if <-heard {
		t.Error("a closed connection counted as a notice")
	}

	conn, send = notifyPair(t)
	go func() { heard <- awaitNotice(conn, os.Getpid()) }()
	send("STATUS=booting")
	send("READY=1\n")
	select {
	case ok := <-heard:
		if !ok {
			t.Error("init's notice did not count")
		}
	case <-time.After(10 * time.Second):
		t.Error("init's notice was not heard")
	}
}

func TestDescriptorsThatComeWithANoticeAreNotTaken(t *testing.T) {
	conn, send := notifyPair(t)
	before := descriptors(t)
	send("STATUS=have this", os.Stdin)
	send("READY=1")
	if !awaitNotice(conn, os.Getpid()) {
		t.Fatal("the notice was not heard")
	}
	if diff := cmp.Diff(before, descriptors(t)); diff != "" {
		t.Errorf("descriptors (-before +after):\n%s", diff)
	}
}

func descriptors(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			all = append(all, to)
		}
	}
	slices.Sort(all)
	return all
}

func TestTheCommandsThatABootWaitsForAreReadFromInittab(t *testing.T) {
	const table = `# comment::sysinit:/no
id:2:initdefault:
si::sysinit:/etc/init.d/rcS
~~:S:wait:/sbin/sulogin --force
l2:2:wait:/etc/init.d/rc 2
l3:3:wait:/etc/init.d/rc 3
x::bootwait:+exec /usr/local/sbin/first now
ca:12345:ctrlaltdel:/sbin/shutdown -t1 -a -r now
1:2345:respawn:/sbin/getty 38400 tty1
::once:/etc/init.d/later
::wait:
broken
`
	want := []string{"/etc/init.d/rcS", "/sbin/sulogin", "/etc/init.d/rc", "/usr/local/sbin/first"}
	if diff := cmp.Diff(want, bootCommands(table)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestTheUnitsThatABootWaitsForAreThoseThatRun(t *testing.T) {
	const list = "101 multi-user.target start waiting\n" +
		"113 slow.service        start running\n" +
		"117 network.target start waiting\n" +
		"no such line\n"
	if diff := cmp.Diff([]string{"slow.service"}, startJobs(list)); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
	many := startJobs(strings.Repeat("1 a.service start running\n", 9))
	if len(many) != maxJobs+1 || many[maxJobs] != "…" {
		t.Errorf("many units became %q", many)
	}
}

// asInit runs a shell that stands for an init, with a table that names what it waits
// for.
func asInit(t *testing.T, script string) (pid int, boot *inittabBoot) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it was killed
	boot = &inittabBoot{commands: []string{"/bin/sleep"}, read: true, last: initTurn{pid: cmd.Process.Pid}}
	return cmd.Process.Pid, boot
}

func TestABootIsCompleteWhenInitSleepsAndWaitsForNothingOfItsTable(t *testing.T) {
	testutil.Require(t, testutil.Root) // it reads /proc of a child, as the others do
	dir := testutil.TempDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The built-in read waits without a child, as an init does for its events.
	pid, boot := asInit(t, fmt.Sprintf(`/bin/true & wait; /bin/sleep 1000; read x <%s`, fifo))
	// A child that is still the shell's copy has the command in its arguments, too.
	waitFor(t, "the boot command", func() bool {
		boot.complete(pid)
		return slices.Equal(boot.running, []string{"/bin/sleep 1000"})
	})
	for range 3 {
		if boot.complete(pid) {
			t.Fatal("complete while a command of the table runs")
		}
	}
	child := strings.Fields(mustRead(t, fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)))[0]
	var n int
	if _, err := fmt.Sscan(child, &n); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the boot", func() bool { return boot.complete(pid) })
}

func TestAnInitThatHasWaitedForNothingYetHasNotBooted(t *testing.T) {
	testutil.Require(t, testutil.Root)
	fifo := filepath.Join(testutil.TempDir(t), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, boot := asInit(t, "read x <"+fifo)
	waitFor(t, "sleep", func() bool { return strings.HasPrefix(procStatus(pid, "State"), "S") })
	for range 3 {
		if boot.complete(pid) {
			t.Error("complete before anything was waited for")
		}
	}
}

func TestASignalThatIsReadFromADescriptorIsCaught(t *testing.T) {
	testutil.Require(t, testutil.Root)
	handled, _ := asInit(t, "trap : TERM; read x </dev/zero")
	waitFor(t, "its handler", func() bool { return catches(handled, unix.SIGTERM) })
	blocked, _ := asInit(t, "exec env --block-signal=TERM sleep 1000")
	waitFor(t, "its mask", func() bool { return catches(blocked, unix.SIGTERM) })
	for _, pid := range []int{handled, blocked} {
		if catches(pid, unix.SIGUSR2) {
			t.Errorf("process %d: SIGUSR2 has no handler and is not blocked", pid)
		}
	}
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come in 20 s", what)
		}
	}
}
