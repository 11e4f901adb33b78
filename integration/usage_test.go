package integration_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reaper is an init that lets what it inherits go.
const reaper = "import signal,time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: time.sleep(1000)"

// refuser wants more tasks than there may be. They hold nothing that the test opened.
const refuser = "for i in $(seq 40); do sleep 0.5 & done >/dev/null 2>&1 </dev/null"

// refusals makes forks fail inside, and waits until what was started has ended.
func (b *box) refusals(t *testing.T) {
	t.Helper()
	b.try(t, "exec", b.name, "--", "sh", "-c", refuser) // the shell gives up at the first
	current := b.cgroupFile(t, "pids.current")
	for end := time.Now().Add(readyTimeout); ; time.Sleep(50 * time.Millisecond) {
		n, err := os.ReadFile(current)
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(n)) == "1" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s tasks are left", n)
		}
	}
}

type usageDocument struct {
	Since     time.Time `json:"since"`
	Resources []struct {
		Resource string   `json:"resource"`
		Held     int64    `json:"held"`
		MaxHeld  int64    `json:"max_held"`
		Limit    *float64 `json:"limit"`
		Failcnt  int64    `json:"failcnt"`
		CPUTime  int64    `json:"cpu_time_ms"`
	} `json:"resources"`
}

func (b *box) usage(t *testing.T, args ...string) (u usageDocument) {
	t.Helper()
	out := b.ctctl(t, append([]string{"usage", b.name, "--format", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &u); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return u
}

func (u usageDocument) held(resource string) int64 {
	for _, r := range u.Resources {
		if r.Resource == resource {
			return r.Held
		}
	}
	return 0
}

func (u usageDocument) fails(resource string) int64 {
	for _, r := range u.Resources {
		if r.Resource == resource {
			return r.Failcnt
		}
	}
	return 0
}

func (b *box) killSupervisor(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.run, b.uid, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Data struct {
			PID        int `json:"pid"`
			Supervisor int `json:"supervisor"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || file.Data.Supervisor <= 1 {
		t.Fatalf("no supervisor in %s (%v)", raw, err)
	}
	if err := unix.Kill(file.Data.Supervisor, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(readyTimeout); unix.Kill(file.Data.Supervisor, 0) == nil && !zombie(file.Data.Supervisor); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the supervisor lives on")
		}
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && len(b) > 0 && stateOf(string(b)) == 'Z'
}

// stateOf reads field 3 of /proc/PID/stat, after a name that may have anything in it.
func stateOf(stat string) byte {
	for i := len(stat) - 1; i > 2; i-- {
		if stat[i-2] == ')' && stat[i-1] == ' ' {
			return stat[i]
		}
	}
	return 0
}

func TestUsageIsCountedOverAllLivesOfAContainer(t *testing.T) {
	b := open(t).create(t, "python3", "-c", reaper)
	b.ctctl(t, "set", b.name, "--pids", "20", "--memory", "128M")
	b.ctctl(t, "start", b.name)
	b.refusals(t)
	counted := b.usage(t).fails("pids")
	if counted == 0 {
		t.Fatal("refused forks are not counted")
	}
	same := func(after string) {
		t.Helper()
		if got := b.usage(t).fails("pids"); got != counted {
			t.Errorf("after %s: got %d refused forks, want %d", after, got, counted)
		}
	}
	more := func(after string) {
		t.Helper()
		b.refusals(t)
		got := b.usage(t).fails("pids")
		if got <= counted || got > counted+40 {
			t.Errorf("after %s and more refused forks: got %d, had %d", after, got, counted)
		}
		counted = got
	}
	b.ctctl(t, "restart", b.name)
	same("a restart")
	more("a restart")
	b.ctctl(t, "snapshot", "create", b.name, "s")
	same("a snapshot")
	more("a snapshot")
	b.ctctl(t, "rollback", b.name, "s")
	same("a rollback")
	more("a rollback")
	b.ctctl(t, "suspend", b.name)
	same("a suspend")
	b.ctctl(t, "resume", b.name)
	same("a resume")
	more("a resume")
	b.killSupervisor(t)
	same("the end of the supervisor")
	more("the end of the supervisor") // exec brings another one
	b.ctctl(t, "stop", b.name)
	same("a stop")
	u := b.usage(t)
	if u.held("pids") != 0 || u.held("memory") != 0 {
		t.Errorf("stopped, it holds %d tasks and %d bytes", u.held("pids"), u.held("memory"))
	}
	for _, r := range u.Resources {
		if r.Resource == "pids" && (r.MaxHeld < 2 || r.Limit == nil || *r.Limit != 20) {
			t.Errorf("pids: at most %d held of a limit of %v", r.MaxHeld, r.Limit)
		}
	}
}

// With nobody left to write it down, what was used after the last time is lost; what
// was counted before is neither lost nor counted again.
func TestWithTheSupervisorKilledOnlyTheLastMinuteIsLost(t *testing.T) {
	b := open(t).create(t, "python3", "-c", reaper)
	b.ctctl(t, "set", b.name, "--pids", "20")
	b.ctctl(t, "start", b.name)
	b.refusals(t)
	b.ctctl(t, "restart", b.name) // its end is saved
	counted := b.usage(t).fails("pids")
	b.refusals(t)
	before := b.usage(t).fails("pids")
	if before <= counted {
		t.Fatalf("%d refused forks, %d before", before, counted)
	}
	b.killSupervisor(t)
	b.ctctl(t, "kill", "--signal", "KILL", b.name)
	b.ctctl(t, "start", b.name)
	if got := b.usage(t).fails("pids"); got < counted || got > before {
		t.Errorf("got %d refused forks, want %d to %d", got, counted, before)
	}
}

func TestTopAndDoctorTellOfARunningContainer(t *testing.T) {
	b := open(t).create(t, "sh", "-c", "while :; do :; done")
	b.ctctl(t, "set", b.name, "--cpus", "0.2", "--pids", "50", "--memory", "64M", "--disk", "64M")
	b.ctctl(t, "start", b.name)
	out := b.ctctl(t, "top", "--once", "--interval", "2s", "--format", "json")
	var top struct {
		Items []struct {
			Name      string  `json:"name"`
			CPU       float64 `json:"cpu_percent"`
			CPULimit  float64 `json:"cpu_limit"`
			PIDs      int64   `json:"pids"`
			DiskLimit int64   `json:"disk_limit"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &top); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	seen := false
	for _, i := range top.Items {
		if i.Name != b.name {
			continue
		}
		seen = true
		// A busy machine gives it less than it may have, none gives more.
		if i.CPU <= 0 || i.CPU > 30 || i.CPULimit != 0.2 || i.PIDs != 1 || i.DiskLimit != 64<<20 {
			t.Errorf("got %+v", i)
		}
	}
	if !seen {
		t.Errorf("it is not in %s", out)
	}
	b.ctctl(t, "doctor", b.name)
	pids := b.cgroupFile(t, "pids.max")
	if err := os.WriteFile(pids, []byte("70"), 0); err != nil {
		t.Fatal(err)
	}
	if res := b.try(t, "doctor", b.name); res.code != 8 {
		t.Errorf("a limit that somebody changed: %v", res)
	}
	b.ctctl(t, "repair", b.name)
	b.ctctl(t, "doctor", b.name)
}

// cgroupFile finds a control file of the container, on cgroup v1 and v2.
func (b *box) cgroupFile(t *testing.T, name string) string {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/ctctl-", "/sys/fs/cgroup/*/ctctl-"} {
		found, err := filepath.Glob(pattern + b.uid + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return found[0]
		}
	}
	t.Fatalf("no %s", name)
	return ""
}
