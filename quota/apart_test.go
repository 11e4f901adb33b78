package quota

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
)

func TestAProcessLeavesTheCgroupsByWhichItsStarterIsEnded(t *testing.T) {
	m, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	testutil.Require(t, testutil.Root, func() error {
		if len(m.apart()) == 0 {
			return errors.New("cgroup2 or the hierarchy name=systemd")
		}
		return nil
	})
	sleeper := exec.CommandContext(t.Context(), "sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = sleeper.Process.Kill()
			_ = sleeper.Wait()
		}
	}
	defer end()
	for range 2 { // the second time it is there already
		if err := StandApart(sleeper.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(sleeper.Process.Pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(b), ":"+apart+"\n"); got != len(m.apart()) {
		t.Errorf("it is in %d of %d:\n%s", got, len(m.apart()), b)
	}
	if err := RemoveApart(); err != nil {
		t.Errorf("with a process in it: %v", err)
	}
	for _, dir := range m.apart() {
		if !exists(dir) {
			t.Errorf("%s was removed with a process in it", dir)
		}
	}
	end()
	if err := RemoveApart(); err != nil {
		t.Error(err)
	}
}
