package template

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
)

func TestTheInitIsWhatPackagesBringOrWhatIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		asked    string
		packages []string
		want     string
		has      string // a package that comes with it
	}{
		{"", nil, InitSystemd, "systemd-sysv"},
		{"", []string{"nginx"}, InitSystemd, "libpam-systemd"},
		{"", []string{"sysvinit-core"}, InitSysvinit, "orphan-sysvinit-scripts"},
		{"", []string{"systemd-sysv:amd64"}, InitSystemd, "dbus"},
		{"", []string{"systemd-sysv/trixie"}, InitSystemd, "dbus"},
		{"", []string{"openrc", "sysvinit-core"}, InitOpenRC, "openrc"},
		{InitOpenRC, []string{"sysvinit-core"}, InitOpenRC, "openrc"},
		{InitNone, []string{"nginx"}, InitNone, "nginx"},
		{InitBusybox, []string{"nginx"}, InitBusybox, "busybox"},
		{InitSysvinit, []string{"sysvinit-core=3.06-4"}, InitSysvinit, "sysvinit-core=3.06-4"},
	} {
		got, err := BuildOptions{Suite: "trixie", Init: c.asked, Packages: c.packages}.complete()
		must(t, err)
		if got.Init != c.want || !slices.Contains(got.Packages, c.has) {
			t.Errorf("%q with %q: %s with %q, want %s with %s", c.asked, c.packages, got.Init, got.Packages, c.want, c.has)
		}
	}
}

func TestTheLoginMovesFromVirtualTerminalsToTheConsole(t *testing.T) {
	const before = `id:2:initdefault:
si::sysinit:/etc/init.d/rcS
l2:2:wait:/etc/init.d/rc 2
#4:23:respawn:/sbin/getty 38400 tty4
1:2345:respawn:/sbin/getty --noclear 38400 tty1
2:23:respawn:/sbin/agetty 38400 tty2
T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100
`
	after := consoleLogin(before)
	want := `id:2:initdefault:
si::sysinit:/etc/init.d/rcS
l2:2:wait:/etc/init.d/rc 2
#4:23:respawn:/sbin/getty 38400 tty4
#1:2345:respawn:/sbin/getty --noclear 38400 tty1
#2:23:respawn:/sbin/agetty 38400 tty2
T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100

# The console of a container.
co:2345:respawn:/sbin/agetty --noclear --keep-baud console 115200,38400,9600 linux
`
	if diff := cmp.Diff(want, after); diff != "" {
		t.Errorf("inittab (-want +got):\n%s", diff)
	}
	if again := consoleLogin(after); again != after {
		t.Errorf("a second time it became:\n%s", again)
	}
}

func TestBusyboxGetsItsTableScriptsAndNames(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	writeTree(t, root, map[string]string{"bin/busybox": "", "sbin/": "", "etc/": ""})
	if err := outfit(root, InitBusybox); err == nil {
		t.Error("a busybox that can't be executed was taken")
	}
	must(t, os.Chmod(filepath.Join(root, "bin/busybox"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "sbin/halt"), nil, 0o755))
	must(t, outfit(root, InitBusybox))
	for name, want := range map[string]string{"init": "/bin/busybox", "poweroff": "/bin/busybox", "reboot": "/bin/busybox"} {
		if got, err := os.Readlink(filepath.Join(root, "sbin", name)); err != nil || got != want {
			t.Errorf("/sbin/%s leads to %q (%v)", name, got, err)
		}
	}
	if fi, err := os.Lstat(filepath.Join(root, "sbin/halt")); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("another package's /sbin/halt was replaced: %v", err)
	}
	table := read(t, filepath.Join(root, "etc/inittab"))
	for line := range strings.Lines(table) {
		script, ok := strings.CutPrefix(strings.TrimSpace(line[strings.LastIndex(line, ":")+1:]), "/etc/init.d/")
		if !ok {
			continue
		}
		if fi, err := os.Stat(filepath.Join(root, "etc/init.d", script)); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v", script, err)
		}
	}
	if init, err := findInit(root); err != nil || init != "/sbin/init" {
		t.Errorf("init is %q (%v)", init, err)
	}
}

func TestASystemdOfATemplateKeepsTheNetworkThatTheHostGives(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := testutil.TempDir(t)
	writeTree(t, root, map[string]string{"etc/": "", "var/": "", "usr/": ""})
	must(t, outfit(root, InitSystemd))
	if text := read(t, filepath.Join(root, keepNetwork)); !strings.Contains(text, "\nKeepConfiguration=yes\n") {
		t.Errorf("%s holds %q", keepNetwork, text)
	}
	usr, err := os.Stat(filepath.Join(root, "usr"))
	must(t, err)
	for _, name := range updatedFiles {
		if fi, err := os.Stat(filepath.Join(root, name)); err != nil || fi.ModTime().Before(usr.ModTime()) {
			t.Errorf("%s is older than /usr: %v", name, err)
		}
	}
}
