package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
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

// settings reads several settings of the calling thread's namespace, by their paths.
// It keeps the directories below procSysNet open, by name. Their entries of all
// namespaces are in one list of the kernel's, as they have the same parent and name,
// and each path from the root goes through it (proc_sys_compare in
// fs/proc/proc_sysctl.c): with 200 containers that took longer than all the rest.
type settings map[string]int

func (s settings) read(path string) (string, error) {
	dir, rest, _ := strings.Cut(strings.TrimPrefix(path, procSysNet+"/"), "/")
	at, known := s[dir]
	if !known {
		var err error
		if at, err = unix.Open(filepath.Join(procSysNet, dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return "", &fs.PathError{Op: "open", Path: path, Err: err}
		}
		s[dir] = at
	}
	fd, err := unix.Openat(at, rest, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var buf [64]byte // each is a number
	n, err := unix.Read(fd, buf[:])
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

func (s settings) close() error {
	var errs []error
	for _, fd := range s {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
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
		if strings.TrimSpace(string(b)) != "1" {
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
