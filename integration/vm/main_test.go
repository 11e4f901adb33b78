//go:build vm

package vmrig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
)

// insideEnv marks the process whose network the machines are connected to.
const insideEnv = "CTCTL_VM_INSIDE"

// TestMain runs the tests in a network namespace of their own, where the
// machines' cables end.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		testutil.Main(m) // every test says that it needs root
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(inside())
	}
	testutil.Main(m, closeRig)
}

func inside() int {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), insideEnv+"=1", fmt.Sprintf("%s=/proc/%d/ns/net", outsideEnv, os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests in a network of their own:", err)
		return 1
	}
	return 0
}

var (
	began = time.Now()
	// images are made when first asked for.
	trixie        = sync.OnceValues(func() (string, error) { return Image(context.Background(), Trixie, false) })
	freshTrixie   = sync.OnceValues(func() (string, error) { return Image(context.Background(), Trixie, true) })
	freshBookworm = sync.OnceValues(func() (string, error) { return Image(context.Background(), Bookworm, true) })

	theRig = sync.OnceValues(func() (*Rig, error) {
		image, err := trixie()
		if err != nil {
			return nil, err
		}
		rigIsUp = true
		return New(context.Background(), image)
	})
	rigIsUp bool // read by closeRig, after all tests
)

func closeRig() error {
	if !rigIsUp {
		return nil
	}
	r, err := theRig()
	if err != nil {
		return nil // a test has said so
	}
	fmt.Fprintf(os.Stderr, "virtual machines: %s, %s, at most %d MiB of memory\n",
		r.Accelerator(), time.Since(began).Round(time.Second), r.Peak()>>20)
	return r.Close()
}

// rig gives the shared rig.
func rig(t testing.TB) *Rig {
	t.Helper()
	testutil.Require(t, testutil.Root, testutil.Tool(qemu), testutil.Tool("qemu-img"),
		testutil.Tool("mmdebstrap"), testutil.Tool("mke2fs"), testutil.Tool("ip"))
	r, err := theRig()
	if err != nil {
		t.Fatal(err)
	}
	return r
}
