package netns

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// procSysNet holds the network settings of the calling thread's namespace.
var procSysNet = "/proc/sys/net"

func sysctlPath(elem ...string) string {
	return filepath.Join(append([]string{procSysNet}, elem...)...)
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

// sysctlStep sets a value under /proc/sys/net.
func sysctlStep(value string, elem ...string) step {
	path := sysctlPath(elem...)
	return step{"set " + path, func() error {
		_, err := setSysctl(path, value)
		return err
	}}
}

// optionalSysctlStep is sysctlStep for a setting that not every kernel has.
func optionalSysctlStep(value string, elem ...string) step {
	s := sysctlStep(value, elem...)
	do := s.do
	s.do = func() error {
		if err := do(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return s
}
