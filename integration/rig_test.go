package integration_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/testutil"
)

// rig is one host: an executable, a state root and a run root. All tests of the
// process share it.
type rig struct {
	binary string
	state  string
	run    string
}

// commandTimeout bounds one ctctl command but template build.
const commandTimeout = 2 * time.Minute

const buildTags = "netgo osusergo seccomp"

var (
	theRig  = sync.OnceValues(setUp)
	rigIsUp bool // read by tearDown, after all tests
)

// open gives the shared rig, with the template "full" in it.
func open(t testing.TB) *rig {
	t.Helper()
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.Btrfs, testutil.UserNS, testutil.CgroupV2, haveRoot)
	r, err := theRig()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newRig() *rig {
	base := os.TempDir() // made by testutil.Main on a real disk, for this process
	return &rig{binary: os.Getenv("CTCTL"), state: filepath.Join(base, "state"), run: filepath.Join(base, "run")}
}

func setUp() (*rig, error) {
	rigIsUp = true
	r := newRig()
	if r.binary == "" {
		r.binary = built("ctctl")
		err := goBuild(r.binary, "../cmd/ctctl", "CGO_ENABLED=1", "-tags="+buildTags,
			"-ldflags=-linkmode external -extldflags -static -s -w")
		if err != nil {
			return r, err
		}
	}
	return r, r.provideTemplate()
}

// tearDown ends what setUp began; what then is left is a test's fault.
func tearDown() error {
	if !rigIsUp {
		return nil
	}
	r, _ := theRig() // an error was a test's failure
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var errs []error
	if _, err := os.Stat(r.state); err == nil {
		if res := r.command(ctx, "", "detach"); res.err != nil {
			errs = append(errs, res)
		}
	}
	for _, dir := range []string{r.run, r.state} {
		errs = append(errs, statefile.RemoveTree(dir))
	}
	for _, name := range programs {
		if err := os.Remove(built(name)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeTree(t *testing.T, dir string) {
	t.Helper()
	if err := statefile.RemoveTree(dir); err != nil {
		t.Error(err)
	}
}

// programs are what tests compile.
var programs = []string{"ctctl", "goserver", "writer"}

// built is where a compiled program is.
func built(name string) string { return filepath.Join(os.TempDir(), name) }

// programsEnv names a directory with what goBuild would make, for a machine that
// can't compile.
const programsEnv = "CTCTL_TEST_PROGRAMS"

// goBuild compiles a package; setting is one environment variable.
func goBuild(out, pkg, setting string, flags ...string) error {
	if dir := os.Getenv(programsEnv); dir != "" {
		program, err := os.ReadFile(filepath.Join(dir, filepath.Base(out)))
		if err != nil {
			return err
		}
		return os.WriteFile(out, program, 0o755)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), setting)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return nil
}

// result is how a command ended; as an error it says everything.
type result struct {
	args           []string
	code           int
	stdout, stderr string
	err            error
}

func (r result) Error() string {
	return fmt.Sprintf("ctctl %s: exit code %d (%v)\n%s%s", strings.Join(r.args, " "), r.code, r.err, r.stdout, r.stderr)
}

func (r *rig) environ() []string {
	return append(os.Environ(), "CTCTL_STATE_ROOT="+r.state, "CTCTL_RUN_ROOT="+r.run)
}

func (r *rig) command(ctx context.Context, stdin string, args ...string) result {
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = r.environ()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	code := -1 // not even started
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	return result{args: args, code: code, stdout: out.String(), stderr: errs.String(), err: err}
}

// try runs ctctl and returns how it ended.
func (r *rig) try(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return r.command(ctx, "", args...)
}

// ctctl runs ctctl, which must succeed, and returns its standard output.
func (r *rig) ctctl(t testing.TB, args ...string) string {
	t.Helper()
	return r.feed(t, "", args...)
}

// feed is like ctctl, with a standard input.
func (r *rig) feed(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	start := time.Now()
	res := r.command(ctx, stdin, args...)
	if res.err != nil {
		t.Fatalf("%v\n%s", res, r.logs())
	}
	t.Logf("%6.3f s  ctctl %.100s", time.Since(start).Seconds(), strings.Join(args, " "))
	return res.stdout
}
