package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"golang.org/x/sys/unix"
)

// hostEnv marks the process that plays the host.
const hostEnv = "CTCTL_INTEGRATION_HOST"

// TestMain runs the tests in a process with a network and a mount namespace of
// its own. They play the host: neither the machine's addresses, routes and
// packet filter are touched, nor do others on the machine get copies of our
// mounts whenever they make a mount namespace, which would keep them busy.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		testutil.Main(m) // skips everything
	}
	if os.Getenv(hostEnv) == "" {
		os.Exit(asHost())
	}
	if err := errors.Join(linkUp("lo"), dropForeignMounts()); err != nil {
		fmt.Fprintln(os.Stderr, "become a host:", err)
		os.Exit(1)
	}
	testutil.Main(m, tearDown)
}

// asHost runs this program again as the host. Its time is limited by go test.
func asHost() int {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), hostEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, // and all mounts become private
		Pdeathsig:    syscall.SIGKILL,
	}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "start the host process:", err)
		return 1
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	fmt.Fprintln(os.Stderr, "host process:", err)
	return 1
}

// dropForeignMounts unmounts, in our namespace only, the copies of what is
// mounted from loop devices: pools of other tests, which could not be detached
// while we have them.
func dropForeignMounts() error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for line := range strings.Lines(string(raw)) {
		left, right, _ := strings.Cut(line, " - ")
		at, what := strings.Fields(left)[4], strings.Fields(right)[1]
		if at == "/" || !strings.HasPrefix(what, "/dev/loop") {
			continue
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	return errors.Join(errs...)
}
