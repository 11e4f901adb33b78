package testutil

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root needs effective user id 0.
func Root() error {
	if os.Geteuid() != 0 {
		return errors.New("root")
	}
	return nil
}

// Tool needs a program in PATH.
func Tool(name string) Need {
	return func() error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("the program %s", name)
		}
		return nil
	}
}

// CRIU needs version 4.2 or newer, in $CTCTL_CRIU or where ctctl looks by
// itself. Older ones can't dump a socket on kernels since 6.16.
func CRIU() error { return findCRIU() }

// Btrfs needs what a pool in a loop file takes, and simple quotas (Linux 6.7).
func Btrfs() error {
	if err := Tool("mkfs.btrfs")(); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return errors.New("loop devices (/dev/loop-control)")
	}
	return kernelAtLeast(6, 7)
}

// UserNS needs to be allowed to make user namespaces.
func UserNS() error { return tryUserNS() }

// CgroupV2 needs a mounted cgroup2 hierarchy, which may be the one without
// controllers of the hybrid layout.
func CgroupV2() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), " - cgroup2 ") {
		return errors.New("a cgroup2 mount")
	}
	return nil
}

var findCRIU = sync.OnceValue(func() error {
	tried := []string{"/usr/local/lib/ctctl/criu/sbin/criu", "/usr/lib/ctctl/criu", "criu"}
	if own := os.Getenv("CTCTL_CRIU"); own != "" {
		tried = []string{own}
	}
	for _, name := range tried {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		out, err := output(path, nil, "--version")
		if err != nil {
			return fmt.Errorf("CRIU: %s --version: %w", path, err)
		}
		return checkCRIU(path, out)
	}
	return fmt.Errorf("CRIU (tried %s; $CTCTL_CRIU names another)", strings.Join(tried, ", "))
})

var criuVersion = regexp.MustCompile(`(?m)^Version: (\d+)\.(\d+)`)

func checkCRIU(path, out string) error {
	m := criuVersion.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("CRIU: %s says %q instead of its version", path, out)
	}
	if !atLeast(m[1], m[2], 4, 2) {
		return fmt.Errorf("CRIU 4.2 or newer; %s is %s.%s", path, m[1], m[2])
	}
	return nil
}

var tryUserNS = sync.OnceValue(func() error {
	_, err := output("true", &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	})
	if err != nil {
		return fmt.Errorf("user namespaces: %w", err)
	}
	return nil
})

func output(path string, attr *syscall.SysProcAttr, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = attr
	b, err := cmd.Output()
	return string(b), err
}

var kernelRelease = regexp.MustCompile(`^(\d+)\.(\d+)`)

func kernelAtLeast(major, minor int) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	m := kernelRelease.FindStringSubmatch(release)
	if m == nil || !atLeast(m[1], m[2], major, minor) {
		return fmt.Errorf("kernel Linux %d.%d or newer; this is %s", major, minor, release)
	}
	return nil
}

func atLeast(haveMajor, haveMinor string, major, minor int) bool {
	a, err := strconv.Atoi(haveMajor)
	if err != nil {
		return false
	}
	b, err := strconv.Atoi(haveMinor)
	return err == nil && (a > major || a == major && b >= minor)
}
