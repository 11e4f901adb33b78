package testutil

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// nested lets run be called inside of a test.
func nested(t *testing.T) {
	t.Helper()
	oldBase, oldSettle := base, settle
	settle = 200 * time.Millisecond
	t.Setenv("TMPDIR", oldBase) // restores what run sets
	t.Cleanup(func() { base, settle = oldBase, oldSettle })
}

func TestRunPassesTheCodeOnWhenNothingIsLeft(t *testing.T) {
	for _, code := range []int{0, 1, 2} {
		nested(t)
		got := run(func() int {
			dir, err := os.MkdirTemp("", "x")
			if err != nil || filepath.Dir(dir) != base {
				t.Errorf("made %s, %v", dir, err)
			}
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
			return code
		})
		if got != code {
			t.Errorf("got %d, want %d", got, code)
		}
		if _, err := os.Stat(base); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}

func TestRunFailsWhenTheTestsLeaveSomething(t *testing.T) {
	tests := map[string]func(t *testing.T) (undo func() error){
		"a descriptor": func(t *testing.T) func() error {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return f.Close
		},
		"a file": func(t *testing.T) func() error {
			if err := os.WriteFile(filepath.Join(base, "x"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() error { return nil } // run removes it
		},
		"a child": func(t *testing.T) func() error {
			cmd := exec.CommandContext(t.Context(), "sleep", "60")
			cmd.WaitDelay = time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() error {
				err := cmd.Process.Kill()
				_ = cmd.Wait() // says that it was killed
				return err
			}
		},
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) {
			nested(t)
			var undo func() error
			if got := run(func() int { undo = leave(t); return 0 }); got != 1 {
				t.Errorf("got %d", got)
			}
			if err := undo(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheLastFunctionsMayEndWhatTheTestsLeftAndFail(t *testing.T) {
	var left string
	tests := func() int {
		left = filepath.Join(base, "shared")
		if err := os.Mkdir(left, 0o700); err != nil {
			t.Error(err)
		}
		return 0
	}
	for name, c := range map[string]struct {
		last func() error
		want int
	}{
		"ended":  {func() error { return os.Remove(left) }, 0},
		"failed": {func() error { return errors.Join(os.Remove(left), errors.New("on purpose")) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			nested(t)
			if got := run(tests, c.last); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestRunFailsWhenTheTestsLeaveAMountOrALoopDevice(t *testing.T) {
	Require(t, Root, Tool("losetup"))
	nested(t)
	var mounted, loop string
	got := run(func() int {
		mounted = filepath.Join(base, "m")
		image := filepath.Join(base, "image")
		if err := errors.Join(os.Mkdir(mounted, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<20)); err != nil {
			t.Error(err)
		}
		if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, "size=64k"); err != nil {
			t.Error(err)
		}
		out, err := output("losetup", nil, "--find", "--show", image)
		if err != nil {
			t.Error(err)
		}
		loop = strings.TrimSpace(out)
		before, err := takeInventory()
		if err != nil {
			t.Error(err)
		}
		want := []string{"mount " + mounted, "loop device " + filepath.Base(loop) + " on " + image}
		if diff := cmp.Diff(want, namesOf(before, "mount ", "loop ")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return 0
	})
	if got != 1 {
		t.Errorf("got %d", got)
	}
	if _, err := output("losetup", nil, "--detach", loop); err != nil {
		t.Error(err)
	}
	if err := errors.Join(unix.Unmount(mounted, 0), os.RemoveAll(filepath.Dir(mounted))); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Dir(mounted) + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func namesOf(v inventory, prefixes ...string) []string {
	var names []string
	for _, i := range v {
		for _, p := range prefixes {
			if strings.HasPrefix(i.name, p) {
				names = append(names, i.name)
			}
		}
	}
	return names
}

// The thread has a network and a mount namespace of its own, which end with it.
func TestTheInventoryHasLinksTablesNamespacesAndCgroupsOfCtctlOnly(t *testing.T) {
	Require(t, Root, Tool("ip"), Tool("nft"), CgroupV2)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- checkShared()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func checkShared() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	before, err := takeInventory()
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "size=64k"); err != nil {
		return err
	}
	group, err := makeCgroup()
	if err != nil {
		return err
	}
	err = os.MkdirAll("/run/netns/ctctl-a", 0o700)
	if err == nil {
		err = os.Mkdir("/run/netns/other", 0o700)
	}
	for _, c := range []string{
		"ip link add ct0123456789ab type veth peer name other0",
		"ip link add ct0123456789abz type veth peer name cr0123456789ab",
		"ip route add blackhole 192.0.2.1/32 proto 199",
		"ip -6 route add blackhole 2001:db8::1/128 proto 199",
		"ip route add blackhole 192.0.2.2/32 proto 99",
		"nft add table inet ctctl",
		"nft add table inet CRIU-12",
		"nft add table inet other",
	} {
		f := strings.Fields(c)
		if err == nil {
			_, err = output(f[0], nil, f[1:]...)
		}
	}
	now, err2 := takeInventory()
	if err = errors.Join(err, err2, os.Remove(group)); err != nil {
		return err
	}
	want := inventory{
		{"link ct0123456789ab", true},
		{"link ct0123456789abz", true},
		{"link cr0123456789ab", true},
		{"route to 192.0.2.1/32", true},
		{"route to 2001:db8::1/128", true},
		{"network namespace ctctl-a", true},
		{"nft table ctctl", true},
		{"nft table CRIU-12", true},
		{"cgroup " + group, true},
	}
	got := now.without(before)
	if missing, more := want.without(got), got.without(want); len(missing) > 0 || !onlyCgroups(more) {
		return fmt.Errorf("missing %v, too many %v", missing, more)
	}
	return nil
}

// onlyCgroups: those of other tests, which the thread sees too.
func onlyCgroups(v inventory) bool {
	return len(namesOf(v, "cgroup ")) == len(v)
}

func makeCgroup() (string, error) {
	mountinfo, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mountinfo)) {
		if strings.Contains(line, " - cgroup2 ") {
			return os.MkdirTemp(strings.Fields(line)[4], "ctctl-testutil-*")
		}
	}
	return "", errors.New("no cgroup2 mount")
}

func TestASharedThingIsOurFaultOnlyWhenNobodyElseRuns(t *testing.T) {
	left := inventory{{"link ct0123456789ab", true}}
	if err := report(left, true); err != nil {
		t.Error(err)
	}
	if err := report(left, false); err == nil || !strings.Contains(err.Error(), "left: link ct0123456789ab") {
		t.Errorf("got %v", err)
	}
	if err := report(inventory{{"mount /x", false}}, true); err == nil {
		t.Error("a mount of ours was excused")
	}
}

func TestOthersRunSeesARunningProcessAndNotADeadOne(t *testing.T) {
	nested(t)
	if got := run(func() int {
		others, err := othersRun() // the run that this test is part of
		if err != nil || !others {
			t.Errorf("got %v, %v", others, err)
		}
		return 0
	}); got != 0 {
		t.Errorf("got %d", got)
	}
	dead := filepath.Join(diskTemp, fmt.Sprintf("ctctl-test-dead%d.lock", os.Getpid()))
	if err := os.WriteFile(dead, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := othersRun(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead one's lock is still there: %v", err)
	}
}

func TestWithoutCountsRepetitions(t *testing.T) {
	a, b := item{"a", false}, item{"b", true}
	got := inventory{a, a, b}.without(inventory{a})
	if diff := cmp.Diff(inventory{a, b}, got, cmp.AllowUnexported(item{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTableAttributeOfBrokenMessagesIsEmpty(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, {0, 0, 0, 0}, {0, 0, 0, 0, 8, 0}, {0, 0, 0, 0, 2, 0, 1, 0}, {0, 0, 0, 0, 255, 0, 1, 0, 'x'}} {
		if got := tableAttribute(b); got != "" {
			t.Errorf("%v: %q", b, got)
		}
	}
}
