package container

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sigRTMin is the first real-time signal as glibc counts them.
const sigRTMin = 34

// stopSignal asks PID 1 to end: systemd powers off on SIGRTMIN+3 (systemd(1)),
// sysvinit and busybox do on SIGUSR2 or are told by poweroff; a command gets SIGTERM.
func (c Config) stopSignal() (syscall.Signal, error) {
	if c.StopSignal != "" {
		return ParseSignal(c.StopSignal)
	}
	if c.System() && path.Base(c.Init) == "systemd" {
		return syscall.Signal(sigRTMin + 3), nil
	}
	return unix.SIGTERM, nil
}

func (c Config) stopTimeout() time.Duration {
	if c.StopTimeout == 0 {
		return 30 * time.Second
	}
	return time.Duration(c.StopTimeout) * time.Second
}

// ParseSignal reads TERM, SIGTERM, 15, RTMIN+3.
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, fmt.Errorf("signal %d is not between 1 and 64", n)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		n, err := strconv.Atoi(strings.TrimPrefix(rest+"", "+"))
		if rest == "" {
			n, err = 0, nil
		}
		if err != nil || n < 0 || sigRTMin+n > 64 {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		return syscall.Signal(sigRTMin + n), nil
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
