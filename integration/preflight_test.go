package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/preflight"
	"github.com/ctctl/ctctl/preflight/obstacle"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// unseen are the obstacles on which CRIU fails and pre-flight only warns, or says
// nothing, with the reason.
var unseen = map[string]string{
	"ping":           "the restore depends on a sysctl, which may be set by then",
	"netlink-unread": "the next moment the message may have been read",
	"unix-io_uring":  "what is inside a socket can't be seen",
	"unix-creds":     "what is inside a socket can't be seen",
	"udp-corked":     "the kernel does not tell",
	"vfork":          "the child may execute something the next moment",
	"epoll-escaped":  "another process may have the file open",
	"mount-autofs":   "its daemon may be there",
}

// Nothing is called an obstacle that CRIU saves and restores, and what it does
// not is named before, and again when it has failed.
func TestPreflightAgreesWithCRIU(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.CgroupV2, testutil.Tool("ip"), testutil.Tool("nsenter"))
	if err := goBuild(built("obstacle"), "./testdata/obstacle", "CGO_ENABLED=0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(built("obstacle")); err != nil {
			t.Error(err)
		}
	})
	engine, err := criu.Find("")
	if err != nil {
		t.Fatal(err)
	}
	blocked := 0
	for _, name := range obstacle.Names() {
		if name == "crowd" {
			continue // it is for measuring
		}
		t.Run(name, func(t *testing.T) {
			c := &comparison{engine: engine, dir: testutil.TempDir(t), joined: strings.HasPrefix(name, "exec-"), deadline: time.Minute}
			if name == "vfork" || name == "traced" {
				c.deadline = 3 * time.Second // CRIU waits in vain
			}
			if c.start(t, name) {
				blocked += c.compare(t, name)
			}
		})
	}
	t.Logf("CRIU fails on %d of %d", blocked, len(obstacle.Names()))
}

// comparison is one obstacle, examined, dumped and restored.
type comparison struct {
	engine       criu.Engine
	dir          string
	root, images string
	cgroup       string
	// joined says that there are processes which are not in the image. The dump
	// must not end the tree then: its end waits for them.
	joined   bool
	deadline time.Duration
	tree     *obstacle.Tree
}

func (c *comparison) start(t *testing.T, name string) bool {
	t.Helper()
	c.root, c.images = filepath.Join(c.dir, "root"), filepath.Join(c.dir, "images")
	if err := errors.Join(os.Mkdir(c.root, 0o755), os.Mkdir(c.images, 0o700)); err != nil {
		t.Fatal(err)
	}
	own := c.makeCgroups(t)
	group, err := os.Open(c.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	err = inCgroups(own, func() (err error) {
		c.tree, err = obstacle.Start(t.Context(), c.root, name, obstacle.Options{Program: built("obstacle"), Cgroup: group})
		return err
	})
	if errors.Is(err, obstacle.ErrUnable) {
		t.Logf("cannot be made here: %v", err)
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.thaw(), c.tree.End()); err != nil {
			t.Error(err)
		}
	})
	return true
}

// makeCgroups makes a cgroup in every hierarchy, so that CRIU does not save those
// of others, and in cgroup2 to freeze the tree in.
func (c *comparison) makeCgroups(t *testing.T) (own []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(right, "cgroup") {
			continue
		}
		dir, err := os.MkdirTemp(strings.Fields(left)[4], "ctctl-test-preflight-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, dir) })
		if strings.HasPrefix(right, "cgroup2") {
			c.cgroup = dir
			continue
		}
		own = append(own, dir)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return own
}

func removeCgroup(t *testing.T, dir string) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Error(err)
			return
		}
	}
}

// inCgroups calls f in a thread that is in other cgroups; what it forks is, too.
func inCgroups(dirs []string, f func() error) error {
	return obstacle.Apart(func() error {
		var errs []error
		for _, dir := range dirs {
			errs = append(errs, os.WriteFile(filepath.Join(dir, "tasks"), []byte(strconv.Itoa(unix.Gettid())), 0o600))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		return f()
	})
}

func (c *comparison) setFrozen(value string) error {
	return os.WriteFile(filepath.Join(c.cgroup, "cgroup.freeze"), []byte(value), 0o600)
}

// members are the processes of the cgroup.
func (c *comparison) members() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(c.cgroup, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for word := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func (c *comparison) thaw() error { return c.setFrozen("0") }

// freeze does it as ctctl does: with a vfork in flight CRIU waits in vain. There is an
// obstacle that is just this: it is frozen as far as it can be.
func (c *comparison) freeze(ctx context.Context) error {
	group, err := quota.Open("/" + filepath.Base(c.cgroup))
	if err != nil {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := group.Freeze(patient); !errors.Is(err, quota.ErrNotFrozen) {
		return err
	}
	return c.setFrozen("1")
}

// compare returns 1 when CRIU fails.
func (c *comparison) compare(t *testing.T, name string) int {
	t.Helper()
	report, err := preflight.Examine(t.Context(), preflight.Target{
		Init: c.tree.Init, PIDs: c.members, Name: "web1", GhostLimitBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(report.Failures(), report.Warnings()...) {
		t.Logf("%s %s: %s", f.Level, f.Code, f)
	}
	dumped := c.dump(t)
	var restored error
	if dumped == nil {
		if err := c.tree.End(); err != nil {
			t.Fatal(err)
		}
		restored = c.restore(t)
	}
	t.Logf("dump: %v; restore: %v", dumped, restored)
	failed := dumped != nil || restored != nil
	switch reason := unseen[name]; {
	case reason != "":
		if !report.OK() || !failed {
			t.Errorf("CRIU was thought to fail and pre-flight not to say so, as %s: it says %v", reason, report.Failures())
		}
	case failed && report.OK():
		t.Error("CRIU fails and pre-flight has not said so")
	case !failed && !report.OK():
		t.Error("pre-flight calls an obstacle what CRIU saves and restores")
	}
	c.wantNamed(t, dumped, report)
	if failed {
		return 1
	}
	return 0
}

// wantNamed wants what CRIU's log says to be understood.
func (c *comparison) wantNamed(t *testing.T, dumped error, report preflight.Report) {
	t.Helper()
	if dumped == nil {
		return
	}
	var ce *criu.Error
	if !errors.As(dumped, &ce) || ce.Object == "" || ce.Cure == "" {
		if errors.Is(dumped, criu.ErrDeadline) {
			return
		}
		t.Errorf("CRIU's log is not understood: %v", dumped)
		return
	}
	for _, f := range report.Failures() {
		if ce.PID == 0 || f.HostPID == 0 || f.HostPID == ce.PID {
			return
		}
	}
	if !report.OK() {
		t.Errorf("CRIU stumbles over process %d, which pre-flight does not name", ce.PID)
	}
}

func (c *comparison) dump(t *testing.T) error {
	t.Helper()
	_, err := c.engine.Dump(t.Context(), criu.DumpOptions{
		PID: c.tree.Init, Root: c.root, Images: c.images, OwnNetNS: true, LeaveRunning: c.joined, GhostLimitBytes: 1 << 20,
		FreezeCgroup: c.cgroup, Freeze: c.freeze, Thaw: c.thaw, PIDs: c.members, Deadline: c.deadline,
	})
	return errors.Join(err, c.thaw())
}

// restore brings the tree back and ends it.
func (c *comparison) restore(t *testing.T) error {
	t.Helper()
	if err := unix.Mount(c.root, c.root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(c.root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	pid, _, err := c.engine.Restore(t.Context(), criu.RestoreOptions{
		Images: c.images, Root: c.root, OwnNetNS: true, Sibling: true, Deadline: time.Minute,
		Notify: func(ctx context.Context, ev criu.Event) error {
			if ev.Script != criu.EventSetupNamespaces {
				return nil
			}
			cmd := exec.CommandContext(ctx, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", ev.PID), "ip", "link", "set", "lo", "up")
			cmd.WaitDelay = time.Second
			return cmd.Run()
		},
	})
	if err != nil {
		return err
	}
	err = errors.Join(c.thaw(), unix.Kill(pid, unix.SIGKILL))
	if _, werr := unix.Wait4(pid, nil, 0, nil); werr != nil {
		err = errors.Join(err, werr)
	}
	if err != nil {
		t.Error(err)
	}
	return nil
}
