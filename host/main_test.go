package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/testutil"
	"golang.org/x/sys/unix"
)

// The tests run in network and mount namespaces of their own, so that what they
// make is nobody else's and ends with them.
const insideEnv = "CTCTL_HOST_TEST_INSIDE"

var exampleState, exampleRun, smallRoot string

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(insideEnv) == "" {
		os.Exit(again())
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := cleanUp(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = 1
	}
	os.Exit(code)
}

// again runs this test binary once more, inside new namespaces.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "inside:", err)
		return 1
	}
	return 0
}

func prepare() error {
	if os.Geteuid() == 0 {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	base, err := os.MkdirTemp("/var/tmp", "ctctl-host-test-")
	if err != nil {
		return err
	}
	if err := os.Chmod(base, 0o711); err != nil {
		return err
	}
	exampleState, exampleRun, smallRoot = filepath.Join(base, "state"), filepath.Join(base, "run"), filepath.Join(base, "root")
	return makeSmallRoot(smallRoot)
}

// loopbackUp sets lo up, by which CRIU finds out what the kernel can do.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// makeSmallRoot copies a shell and a few tools of this machine, with the
// libraries that ldd(1) names.
func makeSmallRoot(root string) error {
	files := []string{"/bin/sh", "/bin/sleep", "/bin/cat", "/bin/rm", "/bin/touch", "/usr/bin/test"}
	for _, f := range files {
		out, err := exec.Command("ldd", f).Output()
		if err != nil {
			return fmt.Errorf("ldd %s: %w", f, err)
		}
		for _, w := range strings.Fields(string(out)) {
			if strings.HasPrefix(w, "/") {
				files = append(files, w)
			}
		}
	}
	for _, f := range files {
		if err := copyFile(f, filepath.Join(root, f)); err != nil {
			return err
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func cleanUp() error {
	base := filepath.Dir(exampleState)
	if os.Geteuid() == 0 {
		ctx := context.Background()
		if _, err := os.Stat(exampleState); err == nil {
			h, err := host.Open(ctx, host.Options{StateRoot: exampleState, RunRoot: exampleRun})
			if err != nil {
				return err
			}
			if err := h.Detach(ctx); err != nil {
				return err
			}
		}
	}
	return statefile.RemoveTree(base)
}

func TestOpenRefusesWhoIsNotRoot(t *testing.T) {
	if os.Geteuid() == 0 { // once more, as nobody
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	if _, err := host.Open(context.Background(), host.Options{}); !errors.Is(err, host.ErrNotRoot) {
		t.Errorf("want ErrNotRoot, got %v", err)
	}
}

func TestTheExampleHasWhatItNeeds(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.Btrfs, testutil.UserNS)
}
