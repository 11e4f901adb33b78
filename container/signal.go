package container

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sigRTMin is the first real-time signal as glibc counts them.
const sigRTMin = 34

// stopSignal is the configured one, 0 when it depends on what PID 1 is.
func (c Config) stopSignal() (syscall.Signal, error) {
	if c.StopSignal == "" {
		return 0, nil
	}
	return ParseSignal(c.StopSignal)
}

// usualStop is the signal that makes a program as PID 1 power its container
// off: systemd(1), busybox init. A command gets SIGTERM. 0 is for an init that
// is told by poweroff(8) instead.
func usualStop(system bool, program string) syscall.Signal {
	switch {
	case !system:
		return unix.SIGTERM
	case program == "systemd":
		return syscall.Signal(sigRTMin + 3)
	case program == "busybox":
		return unix.SIGUSR2
	}
	return 0
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
