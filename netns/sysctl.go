package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// procSysNet holds the network settings of the calling thread's namespace.
var procSysNet = "/proc/sys/net"

const (
	// forwarding6 turns forwarding on for all links.
	forwarding6 = "ipv6/conf/all/forwarding"
	disableIPv6 = "ipv6/conf/*/disable_ipv6"
)

func sysctlPath(elem ...string) string {
	return filepath.Join(append([]string{procSysNet}, elem...)...)
}

// sysctlOf is the path of a setting whose name has * in the link's place.
func sysctlOf(name, link string) string {
	return sysctlPath(strings.Replace(name, "*", link, 1))
}

// setSysctl writes value unless it is set already, and returns what was set
// before. Comparing first lets a read-only /proc/sys pass that needs no change.
func setSysctl(path, value string) (before string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	before = strings.TrimSpace(string(b))
	if before == value {
		return before, nil
	}
	return before, os.WriteFile(path, []byte(value), 0)
}

func setHostWide(log *slog.Logger, value, path string) error {
	before, err := setSysctl(path, value)
	if err != nil {
		return err
	}
	if before != value {
		log.Info(fmt.Sprintf("host-wide setting %s changed from %s to %s", path, before, value), "op", "apply")
	}
	return nil
}

// keepAdvertisements comes before IPv6 forwarding, which has no setting by link
// before Linux 6.17. Turning it on makes the kernel ignore router advertisements
// and drop the default route learnt from them, except on links with accept_ra=2
// (kernel documentation, networking/ip-sysctl); so links that listen to
// advertisements are changed to that first.
func (k *kernel) keepAdvertisements() error {
	links, err := k.host.links(nil)
	if err != nil {
		return err
	}
	for _, l := range links {
		if linkPattern.MatchString(l.name) {
			continue
		}
		path := sysctlPath("ipv6", "conf", l.name, "accept_ra")
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile, or too small an MTU for IPv6
		}
		if err != nil {
			return err
		}
		if b[0] != '1' {
			continue
		}
		if err := setHostWide(k.c.log(), "2", path); err != nil {
			return err
		}
	}
	return nil
}

// optionalSysctlStep sets a value that not every kernel has.
func optionalSysctlStep(value string, elem ...string) step {
	path := sysctlPath(elem...)
	return step{"set " + path, func() error {
		if _, err := setSysctl(path, value); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}}
}
