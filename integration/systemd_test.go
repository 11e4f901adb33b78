package integration_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ctctl/ctctl/profile"
	"golang.org/x/sys/unix"
)

// systemdPackages are in the roots that boot with systemd; perl-base, which every
// Debian has, makes the system calls.
var systemdPackages = []string{"systemd-sysv", "dbus", "libpam-systemd", "procps"}

var (
	systemdLock      sync.Mutex
	systemdTemplates = map[string]bool{}
)

// bootSystemd makes a container that boots with the systemd of a suite, without the
// entries of the profile that are named, and waits until it runs.
func bootSystemd(t *testing.T, suite string, without ...string) *box {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a whole system")
	}
	b := open(t).systemd(t, suite)
	b.edit(t, func(config map[string]any) { config["profile"] = map[string]any{"without": without} })
	b.ctctl(t, "start", b.name)
	b.wantRunning(t)
	return b
}

func (r *rig) systemd(t *testing.T, suite string) *box {
	t.Helper()
	systemdLock.Lock()
	defer systemdLock.Unlock()
	if name := "systemd-" + suite; !systemdTemplates[name] {
		sum := sha256.Sum256([]byte(strings.Join(systemdPackages, " ")))
		cache := filepath.Join(cacheDir, fmt.Sprintf("%s-%x.tar", name, sum[:6]))
		if err := r.template(name, cache, suite, systemdPackages); err != nil {
			t.Fatal(err)
		}
		systemdTemplates[name] = true
	}
	return r.createFrom(t, "systemd-"+suite)
}

// edit changes the configuration file of a stopped container.
func (b *box) edit(t *testing.T, change func(map[string]any)) {
	t.Helper()
	path := filepath.Join(b.state, "containers", b.name, "config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	change(file["data"].(map[string]any))
	if raw, err = json.Marshal(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bootTimeout is generous: the machine may be busy.
const bootTimeout = 2 * time.Minute

// wantRunning waits until systemd says that it runs, with no failed unit.
func (b *box) wantRunning(t *testing.T) {
	t.Helper()
	state := ""
	for end := time.Now().Add(bootTimeout); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		res := b.try(t, "exec", b.name, "--", "systemctl", "is-system-running")
		if state = strings.TrimSpace(res.stdout); state == "running" {
			return
		}
		if state == "degraded" {
			break
		}
	}
	t.Fatalf("it is %q: %s", state, b.exec(t, "systemctl", "--failed", "--no-legend", "--plain"))
}

// sh runs a script inside and gives its output, whatever its exit code.
func (b *box) sh(t *testing.T, script string) string {
	t.Helper()
	res := b.try(t, "exec", b.name, "--", "/bin/sh", "-c", script)
	return strings.TrimSpace(res.stdout + res.stderr)
}

// unit starts a transient service and waits until it is active or has failed.
func (b *box) unit(t *testing.T, name, settings, command string) string {
	t.Helper()
	return b.sh(t, "systemd-run --quiet --unit "+name+" "+settings+" "+command+`
for i in $(seq 100); do
	case $(systemctl is-active `+name+`) in failed) break;; active) [ -n "$(systemctl show -P StatusText `+name+`)" ] && break; sleep 0.2; [ $i -gt 5 ] && break;; *) sleep 0.1;; esac
done
systemctl is-active `+name)
}

func TestSystemdBootsAndComesBack(t *testing.T) {
	for suite, version := range map[string]string{"bookworm": "252", "trixie": "257"} {
		t.Run(suite, func(t *testing.T) {
			b := bootSystemd(t, suite)
			if got := b.ctctl(t, "doctor", b.name); !strings.Contains(got, "for systemd "+version+":") {
				t.Errorf("doctor says:\n%s", got)
			}
			if group := b.exec(t, "cat", "/proc/1/cgroup"); !strings.Contains(group, "0::/init.scope\n") {
				t.Errorf("cgroups of process 1:\n%s", group)
			}
			b.exec(t, "systemd-run", "--quiet", "--unit", "ticker", "sleep", "100000")
			b.ctctl(t, "snapshot", "create", b.name, "booted")
			b.wantRunning(t)
			for range 2 {
				b.ctctl(t, "suspend", b.name)
				b.ctctl(t, "resume", b.name)
				b.wantRunning(t)
				if got := b.sh(t, "systemctl restart ticker && systemctl is-active ticker && systemd-run --wait --quiet true && echo all"); !strings.HasSuffix(got, "all") {
					t.Errorf("jobs after a resume: %s", got)
				}
			}
			b.sh(t, "systemctl stop ticker")
			b.ctctl(t, "rollback", b.name, "booted")
			b.wantRunning(t)
			if got := b.sh(t, "systemctl is-active ticker"); got != "active" {
				t.Errorf("the service that ran at the snapshot is %q", got)
			}
			if n := b.busy(t); n > 50 {
				t.Errorf("process 1 is busy for %d %% of the time", n)
			}
		})
	}
}

// busy is how long of three seconds, in percent, process 1 ran or waited for a
// processor: one that spins does all the time, however busy the machine is.
func (b *box) busy(t *testing.T) int {
	t.Helper()
	used := func() (sum time.Duration) {
		var run, wait, slices int64 // proc(5)
		if _, err := fmt.Sscan(b.exec(t, "cat", "/proc/1/schedstat"), &run, &wait, &slices); err != nil {
			t.Fatal(err)
		}
		return time.Duration(run + wait)
	}
	before, start := used(), time.Now()
	time.Sleep(3 * time.Second)
	return int(100 * (used() - before) / time.Since(start))
}

// A trial provokes what an entry is there for. It answers "" when all is well,
// else a text that the failure is known by.
type trial struct {
	entry string
	also  []string // entries that hide the failure of this one
	want  string   // a part of the failure
	run   func(*testing.T, *box) string
}

// dump says how a snapshot fails; suspend also whether it comes back.
func dump(t *testing.T, b *box) string {
	t.Helper()
	res := b.try(t, "snapshot", "create", "--no-preflight", b.name)
	if res.err == nil {
		return ""
	}
	return res.stderr
}

func suspend(t *testing.T, b *box) string {
	t.Helper()
	if res := b.try(t, "suspend", "--no-preflight", b.name); res.err != nil {
		return res.stderr
	}
	if res := b.try(t, "resume", b.name); res.err != nil {
		return res.stderr
	}
	return ""
}

// nested has a unit with a namespace of its own dumped.
func nested(setting string) func(*testing.T, *box) string {
	return func(t *testing.T, b *box) string {
		t.Helper()
		if state := b.unit(t, "nested", "-p "+setting+"=yes", "sleep 100000"); state != "active" {
			return state
		}
		return dump(t, b)
	}
}

// starts has a unit started.
func starts(setting string) func(*testing.T, *box) string {
	return func(t *testing.T, b *box) string {
		t.Helper()
		if state := b.unit(t, "hardened", "-p "+setting+"=yes", "sleep 100000"); state != "active" {
			return state
		}
		return ""
	}
}

// calls has a program hold what a system call makes, which is dumped. An error of
// the call is what a program without the entry's errno would not see.
func calls(expression string) func(*testing.T, *box) string {
	return func(t *testing.T, b *box) string {
		t.Helper()
		script := `$| = 1; my $p = "\0" x 256; my $r = ` + expression + `; my $e = $! + 0; open(F, ">/run/held.new"); print F $r < 0 ? "errno $e" : "held"; close F; rename "/run/held.new", "/run/held"; sleep 100000`
		b.feed(t, script, "exec", "-i", b.name, "--", "/bin/sh", "-c", "cat >/run/hold.pl")
		b.sh(t, "systemd-run --quiet --unit hold perl /run/hold.pl; for i in $(seq 100); do [ -e /run/held ] && break; sleep 0.1; done")
		if held := b.sh(t, "cat /run/held"); held != "held" {
			t.Logf("%s: %s", expression, held)
			return ""
		}
		return cmp.Or(dump(t, b), "saved all the same")
	}
}

// notifying is a service whose main process notifies systemd once a second.
const notifying = `perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_DGRAM, 0); for (my $n = 0;; $n++) { send($s, "READY=1\nSTATUS=$n", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); sleep 1 }'`

// heard says whether systemd hears the service after it came back.
func heard(t *testing.T, b *box) string {
	t.Helper()
	if state := b.unit(t, "notifying", "-p Type=notify", notifying); state != "active" {
		return state
	}
	if failure := suspend(t, b); failure != "" {
		return failure
	}
	status := func() string { return b.sh(t, "systemctl show -P StatusText notifying") }
	before := status()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if status() != before {
			return ""
		}
	}
	return "nothing is heard any more"
}

var trials = []trial{
	{entry: "env-memory-pressure", want: "busy", run: func(t *testing.T, b *box) string {
		if failure := suspend(t, b); failure != "" {
			return failure
		}
		if n := b.busy(t); n > 50 {
			return fmt.Sprintf("busy for %d %% of the time", n)
		}
		return ""
	}},
	{entry: "no-memory-pressure-watch", want: "restore failed", run: suspend},
	{entry: "no-pidfds", want: "nothing is heard", run: heard},
	{entry: "connected-tmp", want: "doesn't have a proper root mount", run: func(t *testing.T, b *box) string {
		b.sh(t, `printf '[Service]\nDynamicUser=yes\nExecStart=/bin/sleep 100000\n' >/etc/systemd/system/dynamic.service; systemctl daemon-reload; systemctl start dynamic`)
		return dump(t, b)
	}},
	{entry: "no-private-users", want: "failed", run: starts("PrivateUsers")},
	{entry: "no-private-pids", want: "failed", run: starts("PrivatePIDs")},
	{entry: "no-protect-hostname", also: []string{"flags-namespaces"}, want: "nested", run: nested("ProtectHostname")},
	{entry: "no-private-ipc", also: []string{"flags-namespaces"}, want: "nested", run: nested("PrivateIPC")},
	{entry: "no-private-network", also: []string{"flags-namespaces"}, want: "netns", run: nested("PrivateNetwork")},
	{entry: "flags-namespaces", want: "nested", run: func(t *testing.T, b *box) string {
		if state := b.unit(t, "nested", "", "unshare --user sleep 100000"); state != "active" {
			t.Logf("unshare: %s", state)
			return ""
		}
		return dump(t, b)
	}},
	{entry: "no-io-uring", want: "criu", run: calls(fmt.Sprintf("syscall(%d, 4, $p)", unix.SYS_IO_URING_SETUP))},
	{entry: "no-userfaultfd", want: "criu", run: calls(fmt.Sprintf("syscall(%d, 1)", unix.SYS_USERFAULTFD))},
	{entry: "no-memfd-secret", want: "criu", run: calls(fmt.Sprintf("syscall(%d, 0)", unix.SYS_MEMFD_SECRET))},
}

// untried are entries whose failure can't be provoked where this runs, with the
// reason.
var untried = map[string]string{
	"mask-kernel": "the conditions of the units keep systemd from it as well",
	"no-bpf":      "a user namespace's root may not load programs",
	"no-perf":     "what a user namespace's root may open depends on the host",
	"no-fanotify": "a user namespace's root may not watch a mount",
	"no-keyring":  "what is lost is only seen by who uses it",
	"no-clone3":   "what it hides is seen in flags-namespaces",
}

func TestWithoutAnEntryOfTheProfileItsFailureComesBack(t *testing.T) {
	for _, tr := range trials {
		t.Run(tr.entry, func(t *testing.T) {
			b := bootSystemd(t, "trixie", append([]string{tr.entry}, tr.also...)...)
			if failure := tr.run(t, b); !strings.Contains(strings.ToLower(failure), tr.want) {
				t.Errorf("the failure is %q, want one with %q", failure, tr.want)
			}
		})
	}
}

func TestWithAllEntriesNothingFails(t *testing.T) {
	b := bootSystemd(t, "trixie")
	for _, tr := range trials {
		if failure := tr.run(t, b); failure != "" {
			t.Errorf("%s: %s", tr.entry, failure)
		}
		b.sh(t, "systemctl stop nested hardened hold notifying; systemctl reset-failed; rm -f /run/held")
	}
	b.wantRunning(t)
}

func TestEveryEntryOfTheProfileIsTriedOrSaysWhyNot(t *testing.T) {
	tried := map[string]bool{}
	for _, tr := range trials {
		tried[tr.entry] = true
	}
	for _, e := range profile.Entries() {
		if why := untried[e.Name]; !e.Always && tried[e.Name] == (why != "") {
			t.Errorf("%s: tried %v, and said why not: %q", e.Name, tried[e.Name], why)
		}
	}
}
