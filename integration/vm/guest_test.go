//go:build vm

package vmrig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// logsEnv names a directory that keeps consoles and outputs after a run.
const logsEnv = "CTCTL_VM_LOGS"

// States of the shared machine: booted, with the payload mounted and ctctl in its
// PATH; and that with the template "full" imported.
const (
	clean    = "clean"
	template = "template"
)

// shared is the machine of Debian 13 that tests use one after the other.
var shared struct {
	once, templated sync.Once
	m               *Machine
	err             error
}

// guest is a machine within a test.
type guest struct {
	*Machine
}

// booted gives a machine of Debian 13 that has just booted. Tests don't run in
// parallel.
func booted(t testing.TB) *guest {
	t.Helper()
	r := rig(t)
	shared.once.Do(func() { shared.m, shared.err = bootClean(t, r) })
	if shared.m == nil {
		t.Fatal("the machine could not be prepared: ", shared.err)
	}
	g := &guest{shared.m}
	g.keepLogs(t)
	g.into(t, clean)
	return g
}

// withTemplate gives a booted machine with the template "full".
func withTemplate(t testing.TB) *guest {
	t.Helper()
	g := booted(t)
	made := false
	shared.templated.Do(func() {
		g.sh(t, "ctctl template import full "+payloadDir+"/cache/rootfs-*.tar && sync")
		if err := g.Save(template); err != nil {
			t.Fatal(err)
		}
		made = true
	})
	if !made {
		g.into(t, template)
	}
	return g
}

// into puts the machine into a saved state, whatever has become of it.
func (g *guest) into(t testing.TB, state string) {
	t.Helper()
	if g.On() {
		if err := g.Load(t.Context(), state); err == nil {
			return
		}
	}
	if err := g.PowerCut(); err != nil { // QEMU may have ended by itself
		t.Fatal(err)
	}
	if err := g.StartFrom(t.Context(), state); err != nil {
		t.Fatal(err)
	}
}

// bootClean boots a machine and saves it.
func bootClean(t testing.TB, r *Rig) (*Machine, error) {
	image, err := trixie()
	if err != nil {
		return nil, err
	}
	m := r.Machine(Config{Name: Trixie, Image: image, MemoryMiB: 3072, Disks: []Disk{payloadDisk(t)}})
	if err := m.Start(t.Context()); err != nil {
		return nil, err
	}
	if _, err := m.Wait(t.Context()); err != nil {
		return nil, err
	}
	g := &guest{m}
	g.awaitSystem(t)
	g.sh(t, "mkdir -p "+payloadDir+"; echo '/dev/disk/by-id/virtio-"+payloadSerial+" "+payloadDir+" ext4 ro,nofail 0 0' >>/etc/fstab; systemctl daemon-reload; mount "+payloadDir)
	g.sh(t, "install -m 0755 "+payloadDir+"/ctctl /usr/local/bin/ctctl; sync")
	return m, m.Save(clean)
}

// awaitSystem waits until systemd has started everything.
func (g *guest) awaitSystem(t testing.TB) {
	t.Helper()
	r := g.try(t, Command{Args: []string{"systemctl", "is-system-running", "--wait"}, Timeout: bootTimeout})
	if state := strings.TrimSpace(r.Stdout); state != "running" {
		t.Fatalf("the system is %q\n%s", state, g.try(t, Command{Args: []string{"systemctl", "--failed", "--no-pager"}}).Stdout)
	}
}

// try runs a command, which the guest must answer for.
func (g *guest) try(t testing.TB, cmd Command) Result {
	t.Helper()
	r, err := g.Run(t.Context(), cmd)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, r.Stdout, r.Stderr)
	}
	return r
}

// sh runs a shell script, which must succeed, and returns its output.
func (g *guest) sh(t testing.TB, script string) string {
	t.Helper()
	r := g.try(t, Command{Args: []string{"bash", "-euo", "pipefail", "-c", script}})
	if r.Code != 0 {
		t.Fatalf("%s\nexit code %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
	t.Logf("%6.1f s  %.120s", r.Took.Seconds(), script)
	return r.Stdout
}

// patience is with what is a matter of moments on an idle machine.
const patience = 5 * time.Minute

// eventually waits until a shell script succeeds.
func (g *guest) eventually(t testing.TB, script string) string {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		r := g.try(t, Command{Args: []string{"bash", "-euo", "pipefail", "-c", script}})
		if r.Code == 0 {
			return r.Stdout
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v: exit code %d\n%s%s", script, patience, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// keepLogs shows the end of the console when the test has failed, and keeps the
// console and the journal where the user wants them.
func (g *guest) keepLogs(t testing.TB) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", g.tail("console.log"))
		}
		dir := os.Getenv(logsEnv)
		if dir == "" {
			return
		}
		raw, err := os.ReadFile(g.ConsoleLog())
		if err == nil {
			err = os.WriteFile(logPath(dir, t, "console"), raw, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func logPath(dir string, t testing.TB, kind string) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%s.log", strings.ReplaceAll(t.Name(), "/", "-"), kind))
}
