package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestWhatIsKnownOfTheContainerCounts(t *testing.T) {
	testutil.Require(t, testutil.Root)
	tests := map[string]struct {
		name   string
		change func(*Target)
		want   string
	}{
		"a stopped process under the v1 freezer": {"stopped", func(t *Target) { t.FreezerV1 = true }, "fail:stopped"},
		"a paused container sleeps":              {"vfork", func(t *Target) { t.Paused = true }, ""},
		"room for a large deleted file":          {"deleted-large", func(t *Target) { t.GhostLimitBytes = 0 }, ""},
		"a mount that CRIU is told of":           {"mount-ramfs", func(t *Target) { t.External = append(t.External, "/mnt") }, ""},
		"members that are not to be listed":      {"exec-session", func(t *Target) { t.PIDs = nil }, ""},
		"a process in another cgroup": {"traced", func(t *Target) {
			t.PIDs = func() ([]int, error) { return []int{t.Init}, nil }
		}, "fail:traced,fail:other-cgroup"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tree := plant(t, tt.name)
			if tree == nil {
				return
			}
			to := target(tree)
			tt.change(&to)
			rep, err := Examine(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			wantFindings(t, rep, tree, tt.want)
		})
	}
}

func TestAContainerThatHasEndedIsAnError(t *testing.T) {
	testutil.Require(t, testutil.Root)
	tree := plant(t, "nothing")
	if err := tree.End(); err != nil {
		t.Fatal(err)
	}
	if _, err := Examine(t.Context(), target(tree)); !errors.Is(err, ErrGone) {
		t.Errorf("error is %v, want %v", err, ErrGone)
	}
}

func TestErrorsOfTheCallerAreReturned(t *testing.T) {
	testutil.Require(t, testutil.Root)
	tree := plant(t, "nothing")
	to := target(tree)
	broken := errors.New("no list")
	to.PIDs = func() ([]int, error) { return nil, broken }
	if _, err := Examine(t.Context(), to); !errors.Is(err, broken) {
		t.Errorf("error is %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Examine(ctx, target(tree)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want %v", err, context.Canceled)
	}
}

func TestProcessesMayComeAndGoMeanwhile(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Tool("sh"))
	tree := plant(t, "busy")
	for range 20 {
		rep, err := Examine(t.Context(), target(tree))
		if err != nil {
			t.Fatal(err)
		}
		if !rep.OK() {
			t.Fatalf("found %v", rep.Failures())
		}
	}
}

// A thread goes into the container's network namespace. If it were the first one
// and stayed, the whole program would seem to be there.
func TestTheProgramStaysWhereItIs(t *testing.T) {
	testutil.Require(t, testutil.Root)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	to := target(plant(t, "nothing"))
	for range 30 {
		if _, err := Examine(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		if after, err := os.Readlink("/proc/self/ns/net"); err != nil || after != before {
			t.Fatalf("it was in %s and is in %s, %v", before, after, err)
		}
	}
}

func TestOfEachAreaSomethingIsSaid(t *testing.T) {
	testutil.Require(t, testutil.Root)
	rep, err := Examine(t.Context(), target(plant(t, "ordinary")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range rep.Findings {
		got = append(got, string(f.Level)+" "+f.Area)
		if f.What == "" || f.FD != -1 {
			t.Errorf("%+v", f)
		}
	}
	var want []string
	for _, area := range areas {
		want = append(want, "pass "+area)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if rep.Processes < 3 || rep.Threads < rep.Processes || rep.Descriptors < 20 || rep.EstimatedBytes < 1<<20 || rep.EstimatedBytes > 1<<30 {
		t.Errorf("counts are %+v", rep)
	}
	if rep.EstimatedFrozen < 10*time.Millisecond || rep.EstimatedFrozenMillis != rep.EstimatedFrozen.Milliseconds() {
		t.Errorf("estimated to be frozen for %v", rep.EstimatedFrozen)
	}
}

// BenchmarkExamine looks at a hundred Go programs, and at three hundred small
// processes.
func BenchmarkExamine(b *testing.B) {
	testutil.Require(b, testutil.Root)
	b.Run("crowd", func(b *testing.B) {
		to := target(plant(b, "crowd"))
		to.PIDs = nil // to list them here takes longer than all the rest
		bench(b, to)
	})
	b.Run("sleeps", func(b *testing.B) {
		cmd := exec.CommandContext(b.Context(), "sh", "-c", strings.Repeat("sleep 1000 & ", 299)+"echo; wait")
		cmd.WaitDelay = time.Second
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			_ = exec.Command("pkill", "-P", fmt.Sprint(cmd.Process.Pid)).Run() // they end with the shell's session
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		if _, err := out.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		bench(b, Target{Init: cmd.Process.Pid})
	})
}

func bench(b *testing.B, t Target) {
	var rep Report
	before := cpuTime(b)
	for b.Loop() {
		var err error
		if rep, err = Examine(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
	// On a machine that has other things to do the CPU time says more.
	b.ReportMetric((cpuTime(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(rep.Processes), "processes")
	b.ReportMetric(float64(rep.Threads), "threads")
	b.ReportMetric(float64(rep.Descriptors), "descriptors")
}

func cpuTime(b *testing.B) time.Duration {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
