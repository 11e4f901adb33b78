package integration_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A whole Debian with sysvinit as process 1: its init scripts start the servers,
// each as its own user, and it reboots and powers off by itself.
func TestAWholeSystemWithSysvinitLivesThroughItAll(t *testing.T) {
	r := open(t)
	t.Parallel()
	b := r.create(t)
	r.ctctl(t, "start", "--wait", b.name)
	b.eventually(t, "PONG", "redis-cli", "ping")
	b.eventually(t, "1", "su", "postgres", "-c", "psql -Atc 'select 1'")
	b.exec(t, "redis-cli", "set", "key", "old")
	b.exec(t, "su", "postgres", "-c", "psql -qc 'create table t as select 1 as x'")
	users := b.exec(t, "ps", "-C", "redis-server,postgres,nginx,init", "-o", "user=,comm=", "--sort", "user,comm")

	r.ctctl(t, "snapshot", "create", b.name, "up")
	b.exec(t, "redis-cli", "set", "key", "new")
	b.exec(t, "sh", "-c", "kill -9 $(pidof postgres); rm -rf /etc/init.d /var/lib/postgresql")
	r.ctctl(t, "rollback", b.name, "up")
	b.eventually(t, "old", "redis-cli", "get", "key")
	b.eventually(t, "1", "su", "postgres", "-c", "psql -Atc 'select x from t'")
	if now := b.exec(t, "ps", "-C", "redis-server,postgres,nginx,init", "-o", "user=,comm=", "--sort", "user,comm"); now != users {
		t.Errorf("processes at the snapshot:\n%s\nnow:\n%s", users, now)
	}

	for range 3 {
		r.ctctl(t, "suspend", b.name)
		r.ctctl(t, "resume", b.name)
		b.wantStatus(t, "running")
	}
	b.eventually(t, "old", "redis-cli", "get", "key")
	b.eventually(t, "1", "su", "postgres", "-c", "psql -Atc 'select x from t'")

	before := b.initPID(t)
	b.try(t, "exec", b.name, "--", "/sbin/reboot") // ends with the system
	for end := time.Now().Add(readyTimeout); b.initPID(t) == before && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if b.initPID(t) == before {
		t.Fatal("reboot from inside did not start the container anew")
	}
	b.eventually(t, "PONG", "redis-cli", "ping")

	r.ctctl(t, "stop", b.name)
	b.wantStatus(t, "stopped")
	// What powers itself off ends with SIGINT (reboot(2) in a pid namespace), what
	// has to be killed with SIGKILL.
	raw, err := os.ReadFile(filepath.Join(b.state, "containers", b.name, "state.json"))
	if err != nil || !regexp.MustCompile(`"code": 130\b`).Match(raw) {
		t.Errorf("it did not power off by itself: %s (%v)", raw, err)
	}
	r.ctctl(t, "destroy", b.name)
	b.wantGone(t)
}

// eventually runs a command inside until it says what is wanted.
func (b *box) eventually(t *testing.T, want string, args ...string) {
	t.Helper()
	var res result
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		res = b.try(t, append([]string{"exec", b.name, "--"}, args...)...)
		if res.err == nil && strings.TrimSpace(res.stdout) == want {
			return
		}
	}
	t.Fatalf("%v never says %q: %v", args, want, res)
}

// initPID is process 1 as the host numbers it; "" while the container is down.
func (b *box) initPID(t *testing.T) string {
	t.Helper()
	out := strings.Split(strings.TrimSpace(b.ctctl(t, "--format", "csv", "list", "-a", "-o", "name,pid")), "\n")
	for _, line := range out {
		if name, pid, _ := strings.Cut(line, ","); name == b.name {
			return pid
		}
	}
	return ""
}
