package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
)

// What systemd does at the end of a service or session: it ends all that is in the
// cgroup, and removes that.
func TestNothingOfAContainerStaysInTheCgroupOfWhoStartsIt(t *testing.T) {
	starters := starterCgroups(t)
	r := open(t)
	b := r.create(t, "sleep", "infinity")
	script := `for d in "$@"; do echo $$ > "$d/cgroup.procs" || exit; done; exec "$CTCTL" start ` + b.name
	start := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, "sh"}, starters...)...)
	start.Env = append(r.environ(), "CTCTL="+r.binary)
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("start: %v\n%s", err, out)
	}
	for _, dir := range starters {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		for pid := range strings.FieldsSeq(string(procs)) {
			cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			t.Errorf("%s: %s %q", dir, pid, cmdline)
		}
	}
	b.wantStatus(t, "running")
}

// starterCgroups makes one in each hierarchy by which systemd knows processes.
func starterCgroups(t *testing.T) (dirs []string) {
	t.Helper()
	testutil.Require(t, testutil.Root)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(right, "cgroup2 ") && !strings.Contains(right, "name=systemd") {
			continue
		}
		dir := filepath.Join(strings.Fields(left)[4], fmt.Sprintf("starter-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		dirs = append(dirs, dir)
	}
	return dirs
}
