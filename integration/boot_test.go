package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Debian with systemd in a user namespace: it tells when it has booted, lets root
// log in on its console, is rebooted and powered off from inside, and powers off when
// it is asked to.
func TestADebianWithSystemdBootsAndPowersOff(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a whole system several times")
	}
	b := open(t).systemd(t, "trixie")
	t.Parallel()
	start := time.Now()
	b.ctctl(t, "start", "--wait", b.name)
	t.Logf("booted in %v", time.Since(start).Round(time.Millisecond))
	b.wantBooted(t)
	if state := b.sh(t, "systemctl is-system-running"); state != "running" {
		t.Errorf("after start --wait it is %q: %s", state, b.sh(t, "systemctl --failed --no-legend --plain"))
	}
	b.exec(t, "sh", "-c", "echo root:secret | chpasswd")
	b.login(t)

	before := b.initPID(t)
	start = time.Now()
	b.try(t, "exec", b.name, "--", "systemctl", "reboot") // may end with the system
	b.wantOtherInit(t, before)
	b.wantRunning(t)
	t.Logf("rebooted from inside in %v", time.Since(start).Round(time.Millisecond))
	b.login(t) // the console is another one now

	b.try(t, "exec", b.name, "--", "systemctl", "poweroff")
	b.wantPoweredOff(t)

	b.ctctl(t, "start", "--wait", b.name)
	start = time.Now()
	b.ctctl(t, "stop", b.name)
	t.Logf("stopped in %v", time.Since(start).Round(time.Millisecond))
	b.wantPoweredOff(t)

	b.ctctl(t, "start", b.name) // and when it has hardly begun to boot
	b.ctctl(t, "stop", b.name)
	b.wantPoweredOff(t)
}

func TestABootThatDoesNotEndSaysWhatItWaitsFor(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a whole system")
	}
	b := open(t).systemd(t, "trixie")
	t.Parallel()
	b.ctctl(t, "start", "--wait", b.name)
	b.sh(t, `printf '[Service]\nType=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/endless.service
printf '[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/failing.service
systemctl enable endless failing`)
	b.ctctl(t, "stop", b.name)
	const codeTimeout = 13
	res := b.try(t, "start", "--wait", "--timeout", "30s", b.name)
	if res.code != codeTimeout || !strings.Contains(res.stderr, "waits for endless.service") {
		t.Errorf("a boot that does not end: %v", res)
	}
	b.wantStatus(t, "running")
	b.sh(t, "systemctl disable endless")
	res = b.try(t, "restart", "--wait", b.name)
	if res.err != nil || !strings.Contains(res.stderr, "degraded") {
		t.Errorf("a boot with a unit that fails: %v", res)
	}
}

// Each init that template build offers, on each release.
func TestTheTemplatesOfEachInitAndReleaseBoot(t *testing.T) {
	if os.Getenv("CTCTL_TEST_SLOW") != "1" {
		t.Skip("builds six templates, a minute each: set CTCTL_TEST_SLOW=1")
	}
	r := open(t)
	for _, c := range []struct{ suite, init string }{
		{"bookworm", "systemd"},
		{"bookworm", "sysvinit"},
		{"trixie", "sysvinit"},
		{"bookworm", "openrc"},
		{"bookworm", "busybox"},
		{"trixie", "busybox"},
	} {
		t.Run(c.suite+" "+c.init, func(t *testing.T) {
			name := c.suite + "-" + c.init
			if err := r.template(name, filepath.Join(t.TempDir(), "root.tar"), c.suite, []string{"nginx-light", "openssh-server"}, "--init", c.init); err != nil {
				t.Fatal(err)
			}
			defer r.ctctl(t, "template", "delete", name)
			b := r.createFrom(t, name)
			start := time.Now()
			b.ctctl(t, "start", "--wait", b.name)
			t.Logf("booted in %v", time.Since(start).Round(time.Millisecond))
			b.answers(t)
			b.exec(t, "sh", "-c", "echo root:secret | chpasswd")
			b.login(t)
			before := b.initPID(t)
			b.try(t, "exec", b.name, "--", "/sbin/reboot")
			b.wantOtherInit(t, before)
			b.answers(t)
			b.try(t, "exec", b.name, "--", "/sbin/poweroff")
			b.wantPoweredOff(t)
			b.ctctl(t, "start", "--wait", b.name)
			b.answers(t)
			b.ctctl(t, "stop", b.name)
			b.wantPoweredOff(t)
		})
	}
}

// answers waits until the container's web and ssh servers answer the host.
func (b *box) answers(t *testing.T) {
	t.Helper()
	for port, want := range map[string]string{"80": "HTTP/1.1 200 OK", "22": "SSH-2.0-"} {
		var got string
		for end := time.Now().Add(readyTimeout); !strings.HasPrefix(got, want); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("port %s answers %q, not %q", port, got, want)
			}
			got = greeting(net.JoinHostPort(b.addr, port))
		}
	}
}

// greeting is what a server says first to who asks for a page; "" when it does not.
func greeting(addr string) string {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return ""
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: here\r\n\r\n"); err != nil {
		return ""
	}
	buf := make([]byte, 200)
	n, _ := c.Read(buf) // an error leaves nothing
	return string(buf[:n])
}

// wantBooted looks at what the supervisor has written: the notification came, nobody
// had to ask.
func (b *box) wantBooted(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.run, b.uid, "ready.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Data struct {
			Booted time.Time `json:"booted"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || file.Data.Booted.IsZero() {
		t.Errorf("systemd has not told that it booted: %s (%v)", raw, err)
	}
}

// wantOtherInit waits until the container has another process 1.
func (b *box) wantOtherInit(t *testing.T, before string) {
	t.Helper()
	for end := time.Now().Add(bootTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := b.initPID(t); now != "" && now != before {
			return
		}
	}
	t.Fatal("a reboot from inside did not start the container anew")
}

// wantPoweredOff waits until the container is stopped and its supervisor has written
// that it ended by itself: reboot(2) in a pid namespace ends init with SIGINT.
func (b *box) wantPoweredOff(t *testing.T) {
	t.Helper()
	const poweredOff = 130
	var raw []byte
	for end := time.Now().Add(bootTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		if raw, err = os.ReadFile(filepath.Join(b.state, "containers", b.name, "state.json")); err != nil {
			t.Fatal(err)
		}
		var file struct {
			Data struct {
				LastExit struct {
					Code int `json:"code"`
				} `json:"lastExit"`
			} `json:"data"`
		}
		if err := json.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		if file.Data.LastExit.Code == poweredOff && b.status(t) == "stopped" {
			return
		}
	}
	t.Errorf("it has not powered off by itself: it is %s, %s", b.status(t), raw)
}

// login uses the console as somebody at a terminal does.
func (b *box) login(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.binary, "console", b.name)
	cmd.WaitDelay = time.Second
	cmd.Env = b.environ()
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{}
	cmd.Stdout = s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with its input
		_ = cmd.Wait()
		close(ended)
	}()
	defer func() { keyboard.Close(); cancel(); <-ended }()
	for _, step := range []struct{ want, typed string }{
		{"login: ", "root\r"},
		{"assword: ", "secret\r"},
		{"# ", "echo on $(tty) as $(id -u)\r"},
		{"on /dev/console as 0", "exit\r"},
		{"login: ", ""},
	} {
		for !s.past(step.want) {
			select {
			case <-ctx.Done():
				t.Fatalf("no %q on the console: %q", step.want, s.text())
			case <-time.After(50 * time.Millisecond):
			}
		}
		if _, err := io.WriteString(keyboard, step.typed); err != nil {
			t.Fatal(err)
		}
	}
}

// screen is what a console has shown.
type screen struct {
	mu    sync.Mutex
	shown bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.Write(b)
}

// past goes on behind the next place where text is shown, and answers false when
// there is none.
func (s *screen) past(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, rest, found := bytes.Cut(s.shown.Bytes(), []byte(text))
	if found {
		s.shown.Next(s.shown.Len() - len(rest))
	}
	return found
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}
