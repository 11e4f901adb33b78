package template

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What BuildOptions.Init may say.
const (
	InitSystemd  = "systemd"
	InitSysvinit = "sysvinit"
	InitOpenRC   = "openrc"
	InitBusybox  = "busybox"
	InitNone     = "none"
)

// initPackages make a minimal system boot, with a login on the console, and its
// administrator look at processes and addresses. Without libpam-systemd and dbus
// there are no sessions (logind); orphan-sysvinit-scripts has the init scripts that
// Debian's packages no longer bring.
var initPackages = map[string][]string{
	InitSystemd:  {"systemd", "systemd-sysv", "dbus", "libpam-systemd", "iproute2", "procps"},
	InitSysvinit: {"sysvinit-core", "orphan-sysvinit-scripts", "iproute2", "procps"},
	InitOpenRC:   {"sysvinit-core", "openrc", "iproute2", "procps"},
	InitBusybox:  {"busybox", "iproute2", "procps"},
	InitNone:     nil,
}

// initOf are the packages that bring an init: named among the packages they say
// which one is wanted.
var initOf = map[string]string{
	"systemd-sysv": InitSystemd, "systemd": InitSystemd, "init": InitSystemd,
	"sysvinit-core": InitSysvinit, "openrc": InitOpenRC,
}

// initKind says what the system is to boot with.
func (o BuildOptions) initKind() (string, error) {
	brought := ""
	for _, p := range o.Packages {
		name := p[:strings.IndexAny(p+":", ":=/")]
		// OpenRC's process 1 is sysvinit's.
		if kind := initOf[name]; kind != "" && brought != InitOpenRC {
			brought = kind
		}
	}
	kinds := slices.Sorted(maps.Keys(initPackages))
	switch {
	case o.Init == "" && brought == "":
		return InitSystemd, nil
	case o.Init == "":
		return brought, nil
	case !slices.Contains(kinds, o.Init):
		return "", fmt.Errorf("%w: init %.80q is not one of %s", ErrOption, o.Init, strings.Join(kinds, ", "))
	case brought == InitSysvinit && o.Init == InitOpenRC:
	case brought != "" && brought != o.Init && o.Init != InitNone:
		return "", fmt.Errorf("%w: init %s, but a package brings %s", ErrOption, o.Init, brought)
	}
	return o.Init, nil
}

// outfit writes what the packages of a distribution leave to the installer, so
// that an init boots, logs in on the console and powers off.
func outfit(dir, kind string) (err error) {
	top, err := openTop(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	switch kind {
	case InitSystemd:
		return outfitSystemd(top)
	case InitSysvinit, InitOpenRC:
		return outfitSysvinit(top)
	case InitBusybox:
		return outfitBusybox(top)
	}
	return nil
}

// updatedFiles are newer than /usr, so that the first boot of each container does
// not rebuild caches that are as the packages made them
// (systemd-update-done.service(8)).
var updatedFiles = []string{"etc/.updated", "var/.updated"}

// keepNetwork is for who enables systemd-networkd: without it that leaves the
// interfaces alone, but systemd-networkd-wait-online waits for them in vain. Files
// with another name come before it (systemd.network(5)).
const (
	keepNetwork     = "etc/systemd/network/zz-host.network"
	keepNetworkText = `# Addresses and routes come from the host.
[Match]
Name=eth*

[Network]
KeepConfiguration=yes
LinkLocalAddressing=ipv6
IPv6AcceptRA=no
DHCP=no
`
)

// outfitSystemd has no login to set up: systemd-getty-generator(8) starts one on
// /dev/console in a container.
func outfitSystemd(top *os.File) error {
	for _, name := range updatedFiles {
		if err := replaceNeutral(top, name, ""); err != nil {
			return err
		}
	}
	return replaceNeutral(top, keepNetwork, keepNetworkText)
}

func outfitSysvinit(top *os.File) error {
	table, err := readSmall(top, "etc/inittab")
	if errors.Is(err, unix.ENOENT) { // not what Debian installs
		return nil
	}
	if err != nil {
		return err
	}
	return replaceNeutral(top, "etc/inittab", consoleLogin(table))
}

// maxTableBytes bounds an inittab.
const maxTableBytes = 1 << 20

func readSmall(top *os.File, name string) (string, error) {
	f, err := openAt(top, name, unix.O_RDONLY|unix.O_NONBLOCK, 0, inRoot)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTableBytes))
	return string(b), errors.Join(err, f.Close())
}

// virtualTerminal is a line of inittab(5) for a terminal that no container has.
var virtualTerminal = regexp.MustCompile(`(?m)^([^#\n:]*:[^:\n]*:respawn:/sbin/a?getty [^\n]*\btty[0-9]+\b[^\n]*)$`)

// consoleLogin makes init log in on the console instead of on virtual terminals.
func consoleLogin(table string) string {
	table = virtualTerminal.ReplaceAllString(table, "#$1")
	if strings.Contains(table, "\nco:") {
		return table
	}
	if table != "" && !strings.HasSuffix(table, "\n") {
		table += "\n"
	}
	return table + "\n# The console of a container.\nco:2345:respawn:/sbin/agetty --noclear --keep-baud console 115200,38400,9600 linux\n"
}

// busyboxFiles make busybox's init boot what the packages registered with
// update-rc.d(8), in the order of the names, and stop it again.
var busyboxFiles = map[string]struct {
	content string
	mode    uint32
}{
	"etc/inittab": {`# Of busybox init.
::sysinit:/etc/init.d/rcS.busybox
console::respawn:/sbin/agetty --noclear --keep-baud console 115200,38400,9600 linux
::ctrlaltdel:/sbin/reboot
::shutdown:/etc/init.d/rcK.busybox
::restart:/sbin/init
`, 0o644},
	"etc/init.d/rcS.busybox": {`#!/bin/sh
# Started by busybox init when it boots.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mountpoint -q /run || mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /run
mkdir -p /run/lock
chmod 1777 /run/lock
: >/run/utmp
rm -rf /tmp/* /tmp/.[!.]*
for script in /etc/rc2.d/S*; do
	[ ! -x "$script" ] || "$script" start
done
exit 0
`, 0o755},
	"etc/init.d/rcK.busybox": {`#!/bin/sh
# Started by busybox init before it ends what still runs.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for script in /etc/rc0.d/K*; do
	[ ! -x "$script" ] || "$script" stop
done
exit 0
`, 0o755},
}

// busyboxLinks are the names that Debian's package leaves to others.
var busyboxLinks = []string{"init", "halt", "poweroff", "reboot"}

func outfitBusybox(top *os.File) error {
	for _, name := range slices.Sorted(maps.Keys(busyboxFiles)) {
		f := busyboxFiles[name]
		if err := replaceNeutral(top, name, f.content); err != nil {
			return err
		}
		if err := chmodIn(top, name, f.mode); err != nil {
			return err
		}
	}
	target := "/bin/busybox"
	if st, err := statInRoot(top, target); err != nil {
		return err
	} else if !executable(st) {
		return fmt.Errorf("%s is not there", target)
	}
	for _, name := range busyboxLinks {
		dir, base, err := openParent(top, path.Join("sbin", name))
		if err != nil {
			return err
		}
		err = unix.Symlinkat(target, int(dir.Fd()), base)
		if errors.Is(err, unix.EEXIST) { // another package's
			err = nil
		}
		if err = errors.Join(err, dir.Close()); err != nil {
			return fmt.Errorf("link /sbin/%s: %w", name, err)
		}
	}
	return nil
}

func chmodIn(top *os.File, name string, mode uint32) error {
	f, err := openAt(top, name, unix.O_RDONLY|unix.O_NONBLOCK, 0, inRoot)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(os.FileMode(mode)), f.Close())
}
