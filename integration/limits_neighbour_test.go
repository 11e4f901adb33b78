package integration_test

import (
	_ "embed"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/rage.py
var rageScript string

// paceRate is how many questions a second the neighbour is asked.
const paceRate = 200

// crazyDisk is how many bytes the crazy one may have.
const crazyDisk = 24 << 20

// twoLooks is longer than a supervisor lets pass between three looks at what its
// container uses, of which it counts those between which a disk was busy.
const twoLooks = 22 * time.Second

// A container that spins, writes, forks and eats memory as fast as it can meets each of
// its limits, and does not make another one's clients wait.
func TestANeighbourThatGoesCrazyIsHeldBackByItsLimits(t *testing.T) {
	r := open(t)
	crazy := r.create(t, "python3", "-c", rageScript)
	limits := []string{
		"set", crazy.name, "--cpus", "0.5", "--cpu-weight", "100", "--memory", "96M", "--pids", "40",
		"--disk", strconv.Itoa(crazyDisk), "--io-write", "pool=64KiB/s",
	}
	limitsIO := true
	if res := r.try(t, limits...); res.code == codeRefused { // nothing throttles on this host
		limitsIO = false
		r.ctctl(t, limits[:len(limits)-2]...)
	} else if res.err != nil {
		t.Fatal(res)
	}
	good := r.create(t, openRedis...)
	r.ctctl(t, "set", good.name, "--cpu-weight", "100")
	r.ctctl(t, "start", crazy.name, good.name)
	crazy.eventually(t, "", "test", "-e", "/ready")
	p := startPacer(t, net.JoinHostPort(good.addr, "6379"), paceRate)

	var idle, raging []time.Duration
	const slice = 4 * time.Second
	for i, span := range []time.Duration{slice, twoLooks} {
		if i > 0 {
			r.ctctl(t, "pause", crazy.name)
		}
		idle = append(idle, p.during(t, slice)...)
		if i == 0 {
			crazy.exec(t, "touch", "/rage")
			crazy.awaitFailures(t, "cpu", "pids")
		} else {
			r.ctctl(t, "unpause", crazy.name)
		}
		raging = append(raging, p.during(t, span)...)
	}
	p.end(t)
	for _, part := range []float64{0.5, 0.9, 0.99} {
		calm, wild := quantile(idle, part), quantile(raging, part)
		t.Logf("of %d and %d answers %.0f %% came within %v with an idle neighbour, %v with a crazy one: ratio %.2f",
			len(idle), len(raging), part*100, calm, wild, float64(wild)/float64(calm))
	}
	// What other programs of the machine do in the meantime is in these figures too, so
	// they are told and not judged; that no question failed is.
	wantHits(t, crazy, limitsIO)
}

// wantHits wants every limit to have been met. Of io it is known once the container's
// life has been written down, of the disk as long as it is full.
func wantHits(t *testing.T, b *box, limitsIO bool) {
	t.Helper()
	b.awaitFailures(t, "cpu", "memory", "oom-kill", "pids", "disk")
	b.ctctl(t, "kill", "--signal", "KILL", b.name)
	awaitThat(t, "its supervisor has written down what it saw", func() bool { return b.status(t) == "stopped" })
	u, hits := b.usage(t), int64(0)
	for _, r := range u.Resources {
		if strings.HasPrefix(r.Resource, "io ") {
			hits += r.Failcnt
		}
	}
	t.Log(b.ctctl(t, "usage", b.name))
	for _, name := range []string{"cpu", "memory", "oom-kill", "pids"} {
		if u.fails(name) == 0 {
			t.Errorf("%s: stopped, it has never met its limit", name)
		}
	}
	if limitsIO && hits == 0 {
		t.Log("io: its limit was not met at the moments when it was looked at")
	}
	if most := u.most("disk"); most > crazyDisk+diskSlack {
		t.Errorf("it held %d bytes of %d of disk", most, crazyDisk)
	}
}

// most is the most that was held of a resource.
func (u usageDocument) most(resource string) int64 {
	for _, r := range u.Resources {
		if r.Resource == resource {
			return r.MaxHeld
		}
	}
	return 0
}

// awaitFailures waits until limits were met.
func (b *box) awaitFailures(t *testing.T, resources ...string) {
	t.Helper()
	var missing []string
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		u := b.usage(t)
		missing = slices.DeleteFunc(slices.Clone(resources), func(r string) bool { return u.fails(r) > 0 })
		if len(missing) == 0 {
			return
		}
	}
	t.Fatalf("never met: the limits of %v\n%s", missing, b.ctctl(t, "usage", b.name))
}
