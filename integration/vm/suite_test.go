//go:build vm

package vmrig

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// suiteTimeout is for one package. An emulated machine takes ten times as long as
// a real one.
const suiteTimeout = 90 * time.Minute

func TestDoctorFindsEverythingOnADebianHost(t *testing.T) {
	g := booted(t)
	out := g.sh(t, "ctctl doctor")
	t.Log(out)
	if !strings.Contains(out, "soft-dirty") {
		t.Error("doctor does not say whether memory can be dumped in rounds")
	}
}

// The packages' own tests, on a host with systemd and cgroup v2 only. What they
// need of the machine is there: a test that says it is not fails.
func TestSuites(t *testing.T) {
	for _, name := range suites {
		t.Run(strings.ReplaceAll(name, "/", "-"), func(t *testing.T) {
			booted(t).suite(t, name)
		})
	}
}

// suite runs the tests of a package, -short: where the number of rounds is the
// point, the machine outside does them faster. CTCTL_VM_TEST_RUN selects tests.
func (g *guest) suite(t *testing.T, name string) {
	t.Helper()
	args := []string{"./" + testProgram(name), "-test.v", "-test.short", "-test.timeout=" + suiteTimeout.String()}
	if run := os.Getenv("CTCTL_VM_TEST_RUN"); run != "" {
		args = append(args, "-test.run="+run)
	}
	var keep io.Writer
	if dir := os.Getenv(logsEnv); dir != "" {
		f, err := os.Create(logPath(dir, t, "output"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		keep = f
	}
	r := g.try(t, Command{
		Args: args, Dir: filepath.Join(payloadDir, "tests", name), Timeout: suiteTimeout, Output: keep,
		Env: []string{
			"CTCTL=" + payloadDir + "/ctctl", "CTCTL_TEST_STRICT=1", "CTCTL_TEST_CACHE=" + payloadDir + "/cache",
			"CTCTL_TEST_PROGRAMS=" + payloadDir + "/programs",
		},
	})
	passed := strings.Count(r.Stdout, "--- PASS")
	t.Logf("%v, %d tests passed", r.Took.Round(time.Second), passed)
	if r.Code != 0 {
		t.Errorf("exit code %d\n%s", r.Code, failures(r.Stdout+r.Stderr))
	}
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- (FAIL|SKIP): .*$`)

// failures is what to look at of the output of a test program.
func failures(out string) string {
	return strings.Join(failedTest.FindAllString(out, -1), "\n") + "\n…\n" + out[max(0, len(out)-12000):]
}
