//go:build vm

package vmrig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Two versions of the package, on a disk of its own.
const (
	firstVersion  = "0.0.1"
	secondVersion = "0.0.2"

	packagesSerial = "packages"
	packagesDir    = "/packages"
)

// thePackages builds them the way `make deb` does, and a disk with them.
var thePackages = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	r, err := theRig()
	if err != nil {
		return "", err
	}
	root, err := SourceRoot(ctx)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(r.Dir, "packages")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, version := range []string{firstVersion, secondVersion} {
		cmd := outside(ctx, "make", "--no-print-directory", "-C", root, "deb", "VERSION="+version)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("make deb: %w\n%s", err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if _, err := tool(ctx, "mv", lines[len(lines)-1], filepath.Join(dir, "ctctl_"+version+".deb")); err != nil {
			return "", err
		}
	}
	return r.Disk(ctx, "packages.ext4", dir, "256M")
})

// installed is the state of a machine that ctctl's package was installed on, and
// the template "full" imported.
const installed = "installed"

var installedMachines = map[string]*Machine{}

// install boots a Debian that has never heard of ctctl and installs the package.
func install(t *testing.T, suite string) *guest {
	t.Helper()
	r := rig(t)
	image, err := map[string]func() (string, error){Bookworm: freshBookworm, Trixie: freshTrixie}[suite]()
	if err != nil {
		t.Fatal(err)
	}
	packages, err := thePackages()
	if err != nil {
		t.Fatal(err)
	}
	disks := []Disk{payloadDisk(t), {Path: packages, Serial: packagesSerial}}
	g := &guest{r.Machine(Config{Name: "fresh-" + suite, Image: image, Disks: disks})}
	g.keepLogs(t)
	g.powerOn(t)
	for _, d := range []string{payloadSerial, packagesSerial} {
		g.sh(t, fmt.Sprintf("mkdir /%s; echo '/dev/disk/by-id/virtio-%s /%s ext4 ro,nofail 0 0' >>/etc/fstab; systemctl daemon-reload; mount /%s", d, d, d, d))
	}
	g.sh(t, "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "+packagesDir+"/ctctl_"+firstVersion+".deb")
	return g
}

// withPackage gives a machine with the package and the template.
func withPackage(t *testing.T, suite string) *guest {
	t.Helper()
	if m, ok := installedMachines[suite]; ok {
		g := &guest{m}
		g.keepLogs(t)
		g.into(t, installed)
		return g
	}
	g := install(t, suite)
	g.sh(t, "ctctl template import full "+payloadDir+"/cache/rootfs-*.tar; sync")
	if err := g.Save(installed); err != nil {
		t.Fatal(err)
	}
	installedMachines[suite] = g.Machine
	return g
}

// The package on machines that have never heard of ctctl: what belongs to it is
// there, doctor finds nothing that is missing, and a container is brought back.
func TestThePackageInstallsAndWorks(t *testing.T) {
	for _, suite := range []string{Bookworm, Trixie} {
		t.Run(suite, func(t *testing.T) {
			g := withPackage(t, suite)
			defer func() {
				if err := g.PowerCut(); err != nil {
					t.Error(err)
				}
			}()
			g.sh(t, "ctctl version; test -e /usr/share/man/man1/ctctl.1.gz; test -e /usr/share/bash-completion/completions/ctctl")
			if got := strings.TrimSpace(g.sh(t, "systemctl is-enabled ctctl")); got != "enabled" {
				t.Errorf("the unit is %s", got)
			}
			t.Log(g.sh(t, "ctctl doctor"))
			g.mainJob(t)
			g.sh(t, "ctctl destroy --force web; ctctl template delete full; ctctl detach; apt-get -q -y purge ctctl; test ! -e /usr/bin/ctctl")
		})
	}
}

// mainJob is what ctctl is for.
func (g *guest) mainJob(t *testing.T) {
	t.Helper()
	g.sh(t, "ctctl create web --template full --ip auto --memory 512M -- redis-server --protected-mode no --save ''; ctctl start web")
	g.eventually(t, "ctctl exec web -- redis-cli ping")
	g.sh(t, "ctctl exec web -- redis-cli set key old; ctctl snapshot create web good")
	g.sh(t, "ctctl exec web -- redis-cli flushall; ctctl exec web -- rm -rf /usr/bin/redis-server")
	g.sh(t, "ctctl rollback web good; ctctl suspend web; ctctl resume web")
	if got := g.sh(t, "ctctl exec web -- sh -c 'redis-cli get key; ls /usr/bin/redis-server'"); got != "old\n/usr/bin/redis-server\n" {
		t.Errorf("after the rollback: %q", got)
	}
}

// A reboot of the host: what was created with --onboot comes up, suspended
// containers with their memory; the others are as they were, or stopped.
func TestTheHostReboots(t *testing.T) {
	g := withPackage(t, Trixie)
	for _, c := range []struct{ name, flags, after string }{
		{"onsusp", "--onboot", "suspend"}, {"onrun", "--onboot", ""}, {"susp", "", "suspend"}, {"run", "", ""},
	} {
		g.sh(t, fmt.Sprintf("ctctl create %s --template full %s -- redis-server --save ''; ctctl start %s", c.name, c.flags, c.name))
		g.eventually(t, "ctctl exec "+c.name+" -- redis-cli set key "+c.name)
		if c.after != "" {
			g.sh(t, "ctctl "+c.after+" "+c.name)
		}
	}
	if err := g.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.awaitSystem(t)
	t.Log(g.sh(t, "systemctl status --no-pager ctctl; ctctl list --all; journalctl -b --no-pager -u ctctl"))
	for name, want := range map[string]string{"onsusp": "running", "onrun": "running", "susp": "suspended", "run": "stopped"} {
		if got := g.status(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	g.sh(t, "ctctl resume susp; ctctl start run")
	for name, want := range map[string]string{"onsusp": "onsusp", "susp": "susp", "onrun": "", "run": ""} {
		if got := g.eventually(t, "ctctl exec "+name+" -- redis-cli get key"); strings.TrimSpace(got) != want {
			t.Errorf("%s has %q in its memory, want %q", name, got, want)
		}
	}
	if left := g.sh(t, "ctctl repair"); left != "" {
		t.Errorf("repair found: %s", left)
	}
}

// status is a container's, as list shows it.
func (g *guest) status(t testing.TB, name string) string {
	t.Helper()
	for line := range strings.Lines(g.sh(t, "ctctl list --all --format csv -o name,status")) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+","); ok {
			return rest
		}
	}
	return "absent"
}

// The package is upgraded while containers run: they go on under the supervisors
// that they have, and the new executable can do everything with them.
func TestThePackageIsUpgradedWhileContainersRun(t *testing.T) {
	g := withPackage(t, Trixie)
	g.sh(t, "ctctl create web --template full --restart always -- redis-server --save ''; ctctl start web")
	g.eventually(t, "ctctl exec web -- redis-cli set key old")
	g.sh(t, "ctctl snapshot create web before")
	pid := g.sh(t, "pgrep -x redis-server")
	g.sh(t, "DEBIAN_FRONTEND=noninteractive apt-get -q -y install "+packagesDir+"/ctctl_"+secondVersion+".deb")
	if v := g.sh(t, "ctctl version"); !strings.Contains(v, secondVersion) {
		t.Errorf("the version is %s", v)
	}
	if now := g.sh(t, "pgrep -x redis-server"); now != pid {
		t.Errorf("process %s became %s", pid, now)
	}
	if left := g.sh(t, "ctctl repair"); left != "" {
		t.Errorf("repair found: %s", left)
	}
	g.sh(t, "ctctl exec web -- redis-cli set key new; ctctl snapshot create web after")
	g.sh(t, "ctctl exec web -- sh -c 'kill 1; sleep 1d' || true")
	g.eventually(t, "ctctl exec web -- redis-cli ping")
	for _, s := range []struct{ snapshot, want string }{{"before", "old"}, {"after", "new"}} {
		g.sh(t, "ctctl rollback web "+s.snapshot)
		if got := strings.TrimSpace(g.sh(t, "ctctl exec web -- redis-cli get key")); got != s.want {
			t.Errorf("after the rollback to %s: %q", s.snapshot, got)
		}
	}
	g.sh(t, "ctctl suspend web; ctctl resume web; ctctl stop web; ctctl destroy --force web")
}
