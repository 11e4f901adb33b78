package integration_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/quota"
)

// divide is what a root inside may make of its cgroup, and inspect what is seen of it.
const (
	divide = `set -e; cd /sys/fs/cgroup
mkdir -p 'own.slice/a\x2db' own.slice/empty
echo 5 > own.slice/cgroup.max.descendants
echo 1 > own.slice/empty/cgroup.freeze
chmod 750 own.slice
chown 1000:100 own.slice/empty own.slice/empty/cgroup.procs
systemd-run --quiet --unit held sleep 100000`
	inspect = `cd /sys/fs/cgroup
find init.scope own.slice system.slice/held.service -type d | sort
stat -c '%n %u:%g %a' own.slice own.slice/empty own.slice/empty/cgroup.procs own.slice/empty/cgroup.max.depth own.slice/cgroup.freeze
cat own.slice/cgroup.max.descendants own.slice/empty/cgroup.freeze cgroup.subtree_control
tail -n 1 /proc/self/cgroup`
)

func TestWhatIsMadeOfTheCgroupInsideComesBack(t *testing.T) {
	b := bootSystemd(t, "bookworm")
	if out := b.sh(t, divide); out != "" {
		t.Fatal(out)
	}
	want := b.sh(t, inspect)
	if !strings.HasSuffix(want, "0::/init.scope") || !strings.Contains(want, "\nown.slice/empty 1000:100 755\n") {
		t.Fatal(want)
	}
	b.ctctl(t, "snapshot", "create", b.name, "divided")
	b.ctctl(t, "suspend", b.name)
	b.ctctl(t, "resume", b.name)
	if got := b.sh(t, inspect); got != want {
		t.Errorf("after a resume:\n%s\nwant\n%s", got, want)
	}
	b.exec(t, "rmdir", "/sys/fs/cgroup/own.slice/empty")
	b.ctctl(t, "rollback", b.name, "divided")
	if got := b.sh(t, inspect); got != want {
		t.Errorf("after a rollback:\n%s\nwant\n%s", got, want)
	}
	b.wantRunning(t)
	if left, err := os.ReadDir(b.cgroup2(t)); err != nil || len(dirs(left)) != 1 {
		t.Errorf("beside the container's own cgroup: %v, %v", dirs(left), err)
	}
}

// cgroup2 is the container's directory there.
func (b *box) cgroup2(t *testing.T) string {
	t.Helper()
	g, err := quota.Open("/ctctl-" + b.uid)
	if err != nil {
		t.Fatal(err)
	}
	if g.Unified() == "" {
		t.Skip("needs cgroup2")
	}
	return g.Unified()
}

func dirs(list []os.DirEntry) (names []string) {
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestAsManyCgroupsAsThereMayBeAreSaved(t *testing.T) {
	b := bootSystemd(t, "bookworm")
	made := b.sh(t, `cd /sys/fs/cgroup && mkdir many && cd many && mkdir $(seq 5000) 2>/dev/null; ls -d [0-9]* | wc -l`)
	if len(made) != 4 || made > "4096" || made < "3000" {
		t.Fatalf("%s cgroups were made", made)
	}
	b.ctctl(t, "suspend", b.name)
	b.ctctl(t, "resume", b.name)
	if got := b.sh(t, `cd /sys/fs/cgroup/many && ls -d [0-9]* | wc -l; rmdir * 2>/dev/null; cd .. && rmdir many && echo gone`); got != made+"\ngone" {
		t.Errorf("of %s cgroups: %s", made, got)
	}
	b.wantRunning(t)
}

// Nobody has the console open here, so CRIU does not save its pty; services with
// mount namespaces of their own see it, too.
func TestAConsoleThatNobodyHasOpenComesBackEverywhere(t *testing.T) {
	b := bootSystemd(t, "bookworm")
	b.sh(t, "systemctl stop console-getty.service")
	b.sh(t, "systemd-run --quiet --unit private -p PrivateTmp=yes sleep 100000")
	for range 3 {
		b.ctctl(t, "suspend", b.name)
		b.ctctl(t, "resume", b.name)
	}
	b.wantRunning(t)
	said := b.sh(t, `echo by-the-system >/dev/console; nsenter -t $(systemctl show -P MainPID private) -m sh -c 'echo by-a-service >/dev/console'`)
	if said != "" {
		t.Error(said)
	}
	for _, want := range []string{"by-the-system", "by-a-service"} {
		for end := time.Now().Add(readyTimeout); !strings.Contains(b.consoleLog(), want); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the console does not show %q", want)
			}
		}
	}
}

func TestDoctorTurnsMPTCPOffAndSaysWhatItLeaves(t *testing.T) {
	b := bootSystemd(t, "bookworm")
	ns, err := os.Open("/proc/" + b.initPID(t) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const setting = "/proc/sys/net/mptcp/enabled"
	var werr error
	if err := insideNetNS(ns, func() { werr = os.WriteFile(setting, []byte("1"), 0) }); err != nil {
		t.Fatal(err)
	}
	if os.IsNotExist(werr) {
		t.Skip("a kernel without MPTCP")
	}
	if werr != nil {
		t.Fatal(werr)
	}
	if got := b.unit(t, "multipath", "", `perl -e 'socket(S,2,1,262) or die $!; sleep 100000'`); got != "active" {
		t.Fatalf("the service with an MPTCP socket is %q", got)
	}
	res := b.try(t, "doctor", b.name, "--for", "snapshot", "--fix")
	for _, want := range []string{"multipath.service", "descriptor 3: MPTCP socket", "done: net.mptcp.enabled is 0", "has to be restarted"} {
		if !strings.Contains(res.stdout, want) {
			t.Errorf("no %q in\n%s", want, res.stdout)
		}
	}
	if got := b.exec(t, "cat", setting); strings.TrimSpace(got) != "0" {
		t.Errorf("net.mptcp.enabled is %s", got)
	}
	b.sh(t, "systemctl stop multipath")
	b.ctctl(t, "snapshot", "create", b.name, "well")
}
