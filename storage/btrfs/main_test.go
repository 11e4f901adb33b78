package btrfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

// outerMountsEnv names the mount namespace that the tests were started in.
const outerMountsEnv = "CTCTL_TEST_OUTER_MOUNTS"

// TestMain runs the tests in a mount namespace of their own. Otherwise the
// containers that other packages' tests start would have copies of the pools'
// mounts, as any new mount namespace has, and Detach would refuse.
func TestMain(m *testing.M) {
	outer := os.Getenv(outerMountsEnv)
	if os.Geteuid() == 0 && outer == "" {
		os.Exit(runPrivately())
	}
	if outer != "" {
		if err := forgetForeignPools(outer); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	testutil.Main(m)
}

// forgetForeignPools unmounts, in this namespace only, our copies of other
// tests' pools, which would stop them from being detached.
func forgetForeignPools(outer string) error {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	if own == outer {
		return fmt.Errorf("%s is set, but the mount namespace is still %s", outerMountsEnv, own)
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, " - btrfs /dev/loop") {
			continue
		}
		point := strings.Fields(line)[4]
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount the copy of %s: %w", point, err)
		}
	}
	return nil
}

func runPrivately() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	outer, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = append(os.Environ(), outerMountsEnv+"="+outer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Unshareflags, unlike Cloneflags, makes Go turn all mounts private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	default:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}
