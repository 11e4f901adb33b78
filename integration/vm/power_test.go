//go:build vm

package vmrig

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// powerCuts is how often the power fails; powerCutsShort with -short.
	powerCuts      = 20
	powerCutsShort = 4
	// cutsEnv is another number of times, seedEnv repeats a run's moments.
	cutsEnv = "CTCTL_VM_CUTS"
	seedEnv = "CTCTL_TEST_SEED"
	// maxPublished is after how many snapshots the power fails at the latest. Not
	// after some time: on a busy machine nothing would have happened yet.
	maxPublished = 5
)

// The loop that the power fails in. The container "main" has the same number in
// Redis, which keeps it in memory, and in a file; then it is snapshotted, and the
// number is said when the command has succeeded. Between, "other" is suspended and
// resumed, and one that is not looked at comes and goes.
const powerLoop = `
i=$1
while :; do
	i=$((i + 1))
	ctctl exec main -- sh -c "redis-cli set number $i >/dev/null && echo $i >/srv/number"
	ctctl snapshot create main "s$i" >/dev/null
	echo "published s$i"
	case $((i % 3)) in
	0) ctctl suspend other && ctctl resume other ;;
	1) ctctl create passing --template full -- sleep 1d && ctctl start passing ;;
	2) ctctl destroy --force passing || true ;;
	esac
done`

// When the power comes back after it failed at any moment, one repair settles
// everything, every container goes on, and every snapshot that is in the list,
// and each that was reported to somebody is, brings back its instant: memory and
// files.
func TestPowerFailsWhileContainersAreSnapshotted(t *testing.T) {
	g := withTemplate(t)
	r := rand.New(rand.NewPCG(seed(t), 0))
	g.sh(t, "ctctl create main --template full -- redis-server --save ''; ctctl create other --template full -- redis-server --save ''")
	g.bringUp(t)
	pace := 4 * time.Second
	for round := range cuts(t) {
		after, later := r.IntN(maxPublished+1), r.Float64()
		var published []string
		published, pace = g.snapshotUntilPowerFails(t, round*1000, after, later, pace)
		t.Logf("cut %d: %.2f of %v after %d snapshots, published %v", round+1, later, pace.Round(time.Millisecond), after, published)
		g.powerOn(t)
		g.wantSettled(t)
		g.bringUp(t)
		g.wantSnapshots(t, published)
	}
}

// bringUp makes both containers serve, whatever they were doing before.
func (g *guest) bringUp(t *testing.T) {
	t.Helper()
	for _, c := range []string{"main", "other"} {
		switch status := g.status(t, c); status {
		case "suspended":
			g.sh(t, "ctctl resume "+c)
		case "stopped":
			g.sh(t, "ctctl start "+c)
		default:
			t.Fatalf("%s is %s", c, status)
		}
		g.eventually(t, "ctctl exec "+c+" -- redis-cli ping")
	}
}

func seed(t testing.TB) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano()) //nolint:gosec // any will do
	if given := os.Getenv(seedEnv); given != "" {
		var err error
		if s, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
	}
	t.Logf("%s=%d repeats this", seedEnv, s)
	return s
}

func cuts(t testing.TB) int {
	t.Helper()
	if given := os.Getenv(cutsEnv); given != "" {
		n, err := strconv.Atoi(given)
		if err != nil {
			t.Fatalf("%s: %v", cutsEnv, err)
		}
		return n
	}
	if testing.Short() {
		return powerCutsShort
	}
	return powerCuts
}

// snapshotUntilPowerFails runs the loop and returns the snapshots that it reported,
// and how long one took. The power fails a part of that time after so many of them;
// pace is how long one took the last time.
func (g *guest) snapshotUntilPowerFails(t *testing.T, from, after int, part float64, pace time.Duration) ([]string, time.Duration) {
	t.Helper()
	var said lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan Result, 1)
	began := time.Now()
	go func() {
		r, err := g.Run(ctx, Command{
			Args: []string{"bash", "-euo", "pipefail", "-c", powerLoop, "loop", strconv.Itoa(from)}, Timeout: time.Hour, Output: &said,
		})
		if err != nil {
			r.Code = -1 // the power failed
		}
		ended <- r
	}()
	wait := func(d time.Duration) {
		select {
		case r := <-ended:
			cancel()
			t.Fatalf("the loop ended by itself, exit code %d\n%s", r.Code, said.String())
		case <-time.After(d):
		}
	}
	for len(said.published()) < after {
		wait(10 * time.Millisecond)
	}
	if after > 0 {
		pace = time.Since(began) / time.Duration(after)
	}
	wait(time.Duration(part * float64(pace)))
	if err := g.PowerCut(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	return said.published(), pace
}

// powerOn boots the machine with what is on its disk.
func (g *guest) powerOn(t testing.TB) {
	t.Helper()
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.awaitSystem(t)
}

// wantSettled repairs and checks that nothing is left to repair.
func (g *guest) wantSettled(t *testing.T) {
	t.Helper()
	t.Logf("repair: %s", g.sh(t, "ctctl repair"))
	if again := g.sh(t, "ctctl repair"); again != "" {
		t.Errorf("a second repair still found: %s", again)
	}
	g.sh(t, "ctctl destroy --force passing 2>/dev/null || true")
}

// wantSnapshots rolls back to each snapshot of main, and removes all.
func (g *guest) wantSnapshots(t *testing.T, published []string) {
	t.Helper()
	there := strings.Fields(g.sh(t, "ctctl snapshot list main --format ids"))
	for _, name := range published {
		if !slices.Contains(there, name) {
			t.Errorf("snapshot %s was reported and is not there: %v", name, there)
		}
	}
	for _, name := range there {
		number, ok := strings.CutPrefix(name, "s")
		if !ok {
			continue
		}
		g.sh(t, "ctctl rollback main "+name)
		got := g.sh(t, "ctctl exec main -- sh -c 'redis-cli get number; cat /srv/number'")
		if want := fmt.Sprintf("%s\n%s\n", number, number); got != want {
			t.Errorf("rolled back to %s, memory and file say %q", name, got)
		}
	}
	g.sh(t, "for s in $(ctctl snapshot list main --format ids); do ctctl snapshot delete main $s; done")
}

// lockedBuffer can be read while it is written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// published are the snapshots that the loop has reported.
func (b *lockedBuffer) published() (names []string) {
	for line := range strings.Lines(b.String()) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "published "); ok && strings.HasSuffix(line, "\n") {
			names = append(names, name)
		}
	}
	return names
}
