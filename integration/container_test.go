package integration_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// box is one container under test.
type box struct {
	*rig
	name string
	uid  string
	addr string
}

var boxes atomic.Uint32

// boxAddr is an address for the nth container of the process.
func boxAddr(n uint32) string { return fmt.Sprintf("10.99.%d.%d", n/200, n%200+2) }

// create makes a container that runs a command, and destroys it with the test.
func (r *rig) create(t testing.TB, command ...string) *box {
	t.Helper()
	return r.createFrom(t, "full", command...)
}

// createFrom is create, from another template.
func (r *rig) createFrom(t testing.TB, template string, command ...string) *box {
	t.Helper()
	n := boxes.Add(1)
	b := &box{rig: r, name: fmt.Sprintf("box-%d", n), addr: boxAddr(n)}
	t.Cleanup(func() { b.destroy(t) })
	args := []string{"create", "--template", template, "--ip", b.addr + "/32", b.name}
	if len(command) > 0 { // else the template's init
		args = append(append(args, "--"), command...)
	}
	r.ctctl(t, args...)
	b.uid = b.readUID(t)
	return b
}

// destroy removes the container if it is there, and looks for leftovers.
func (b *box) destroy(t testing.TB) {
	t.Helper()
	if t.Failed() {
		t.Log(b.logs())
		t.Log(b.consoleLog())
	}
	if _, err := os.Stat(filepath.Join(b.state, "containers", b.name)); err != nil {
		return
	}
	b.end(t, b.name)
	b.wantGone(t)
}

// end destroys a container, which a command that a failed test has left may hold.
func (r *rig) end(t testing.TB, name string) {
	t.Helper()
	for end := time.Now().Add(readyTimeout); ; time.Sleep(200 * time.Millisecond) {
		res := r.try(t, "destroy", "--force", name)
		if res.err == nil {
			return
		}
		if res.code != codeBusy || time.Now().After(end) {
			t.Error(res)
			return
		}
	}
}

// codeBusy is ctctl's exit code when another command holds the container.
const codeBusy = 6

// readUID reads the uid from the configuration file, whose form is documented.
func (b *box) readUID(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.state, "containers", b.name, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Data struct {
			UID string `json:"uid"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || file.Data.UID == "" {
		t.Fatalf("no uid in %s (%v)", raw, err)
	}
	return file.Data.UID
}

// wantGone fails unless nothing of the container is left on the host.
func (b *box) wantGone(t testing.TB) {
	t.Helper()
	if b.uid == "" {
		return
	}
	var left []string
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		left = b.leftovers(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left of %s: %s", b.name, strings.Join(left, ", "))
			return
		}
	}
}

func (b *box) leftovers(t testing.TB) (left []string) {
	t.Helper()
	patterns := []string{
		b.state + "/containers/" + b.name, b.state + "/snapshots/" + b.uid, b.run + "/" + b.uid,
		b.state + "/pool/volumes/*" + b.uid + "*", b.state + "/volumes/*" + b.uid + "*",
		"/sys/fs/cgroup/ctctl-" + b.uid, "/sys/fs/cgroup/*/ctctl-" + b.uid,
	}
	for _, p := range patterns {
		found, err := filepath.Glob(p)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.uid) {
			left = append(left, "mount "+line)
		}
	}
	if link := "ct" + b.uid[:12]; hasLink(link) {
		left = append(left, "link "+link)
	}
	return append(left, b.processes(t)...)
}

func hasLink(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

// processes lists those that have the container's name or uid in their command
// line: its supervisor, CRIU, ctctl itself.
func (b *box) processes(t testing.TB) (found []string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		raw, err := os.ReadFile(p)
		if err != nil {
			continue // it has ended
		}
		line := strings.ReplaceAll(string(raw), "\x00", " ")
		if strings.Contains(line, b.uid) || strings.HasSuffix(strings.TrimSpace(line), "supervise "+b.name) && b.runsHere(p) {
			found = append(found, "process "+p+" "+line)
		}
	}
	return found
}

// runsHere tells our supervisors from those of other state roots on the machine.
func (b *box) runsHere(cmdline string) bool {
	mounts, err := os.ReadFile(filepath.Join(filepath.Dir(cmdline), "mountinfo"))
	return err == nil && strings.Contains(string(mounts), b.uid)
}

// exec runs a command inside and returns its output.
func (b *box) exec(t testing.TB, command ...string) string {
	t.Helper()
	return b.ctctl(t, append([]string{"exec", b.name, "--"}, command...)...)
}

// install puts an executable of the host into the running container.
func (b *box) install(t testing.TB, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	// Renamed, because whoever waits for the file must not see half of it.
	b.feed(t, string(raw), "exec", "-i", b.name, "--", "/bin/sh", "-c",
		fmt.Sprintf("cat >%[1]s.part && chmod 0755 %[1]s.part && mv %[1]s.part %[1]s", to))
}

// status is the first word that says what the container is doing.
func (b *box) status(t testing.TB) string {
	t.Helper()
	out := b.ctctl(t, "status", b.name)
	for _, word := range []string{"running", "paused", "suspended", "stopped"} {
		if strings.Contains(out, word) {
			return word
		}
	}
	t.Fatalf("no status in %q", out)
	return ""
}

func (b *box) wantStatus(t testing.TB, want string) {
	t.Helper()
	if got := b.status(t); got != want {
		t.Fatalf("%s is %s, not %s", b.name, got, want)
	}
}

// consoleLog is the end of what the container has printed.
func (b *box) consoleLog() string {
	return "console: " + tail(filepath.Join(b.state, "containers", b.name, "console.log"), 4000)
}

// logs is what supervisors have logged, for failure messages.
func (r *rig) logs() string {
	found, err := filepath.Glob(filepath.Join(r.run, "*", "supervisor.log"))
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	for _, f := range found {
		fmt.Fprintf(&all, "%s: %s\n", f, tail(f, 2000))
	}
	return all.String()
}

func tail(path string, n int) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-n):])
}
