package integration_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
)

const (
	// killRounds is how often something must have been killed; rounds in which it
	// came too late do not count.
	killRounds      = 200
	killRoundsShort = 20
	// thawedWithin is how long a container may stand still after whoever had
	// frozen it was killed, without anybody running a command.
	thawedWithin = 3 * time.Second
	servedWithin = 5 * time.Second
	ballastMiB   = 48
)

// killSeedEnv repeats a run: the moments differ, what is done does not.
const killSeedEnv = "CTCTL_TEST_SEED"

// killChoice is what can be killed during an operation.
type killChoice struct {
	op      string
	weight  int
	victims []string
}

var killChoices = []killChoice{
	{"snapshot", 5, []string{victimCommand, victimCommand, victimCRIU, victimCRIU, victimSupervisor, victimHolder}},
	{"rollback", 6, []string{victimCommand, victimCommand, victimCRIU, victimCRIU, victimSupervisor, victimSupervisor, victimHolder}},
	{"suspend", 4, []string{victimCommand, victimCommand, victimCRIU, victimSupervisor, victimHolder}},
	{"resume", 4, []string{victimCommand, victimCRIU, victimSupervisor}},
	{"start", 2, []string{victimCommand, victimSupervisor}},
	{"stop", 2, []string{victimCommand, victimSupervisor, victimHolder}},
	{"create", 2, []string{victimCommand}},
	{"destroy", 3, []string{victimCommand, victimSupervisor}},
}

func chooseKill(r *rand.Rand) (op, victim string) {
	sum := 0
	for _, c := range killChoices {
		sum += c.weight
	}
	n := r.IntN(sum)
	for _, c := range killChoices {
		if n -= c.weight; n < 0 {
			return c.op, c.victims[r.IntN(len(c.victims))]
		}
	}
	return "", ""
}

// killer is the state of the loop over its rounds.
type killer struct {
	*site
	rand    *rand.Rand
	l       *ledger // of the container "main"
	base    entries // what the snapshot "base" has
	typical map[string]time.Duration
	round   int
	// witness is a connection that must outlive all that does not end or
	// revert the container.
	witness *line
	crashes int // that the container's init has printed
	// injuries counts the rounds in which a killed CRIU took init with it.
	injuries int
	tally    tally
}

const (
	mainName     = "main"
	cameReverted = "as in the snapshot"
	cameInjured  = "ended by the kill"
)

// Whatever is killed, whenever: the container goes on or is brought back by the
// next command, everything acknowledged is there, nothing else is left.
func TestNothingIsLostWhereverAnOperationIsKilled(t *testing.T) {
	s := newSite(t)
	k := &killer{site: s, rand: killRand(t), typical: map[string]time.Duration{}, tally: tally{}}
	k.l = s.addLedger(t, mainName, ballastMiB)
	t.Cleanup(k.l.pause)
	k.base = k.l.settle(t)
	k.testify(t, "start", "")
	t.Cleanup(func() { k.witness.conn.Close() })
	k.must(t, childRequest{Op: "snapshot", Name: mainName, Snap: "base"})
	k.measure(t)
	rounds := killRounds
	if testing.Short() {
		rounds = killRoundsShort
	}
	for k.round = 1; k.tally.killed() < rounds && !t.Failed(); k.round++ {
		k.once(t)
	}
	t.Log("\n" + k.tally.table())
	if k.injuries > max(2, rounds/20) {
		t.Errorf("%d of %d kills ended the container: more than CRIU has moments for that", k.injuries, rounds)
	}
}

func killRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(killSeedEnv); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s=%d", killSeedEnv, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// measure runs each operation unharmed, for how long it takes at least.
func (k *killer) measure(t *testing.T) {
	t.Helper()
	for i := range 2 * len(killChoices) {
		op := killChoices[i/2].op
		req := k.prepare(t, op)
		k.l.mayGoBack(&k.base)
		began := time.Now()
		k.must(t, req)
		took := time.Since(began)
		if d, ok := k.typical[op]; !ok || took < d {
			k.typical[op] = took
		}
		k.putRight(t, req)
	}
	t.Log(k.typical)
	k.wantClean(t)
	k.testify(t, "start", "")
}

// prepare brings about what an operation needs and makes the request.
func (k *killer) prepare(t *testing.T, op string) childRequest {
	t.Helper()
	req := childRequest{Op: op, Name: mainName}
	need := container.Running
	switch op {
	case "snapshot":
		req.Snap = fmt.Sprintf("s%d", k.round)
	case "rollback":
		req.Snap = "base"
	case "resume":
		need = container.Suspended
	case "start":
		need = container.Stopped
	case "create":
		req = k.ledgerRequest(fmt.Sprintf("new%d", k.round), 1)
	case "destroy":
		req.Name = fmt.Sprintf("old%d", k.round)
		k.doomed(t, req.Name)
	}
	k.become(t, need)
	return req
}

// doomed makes a container to be destroyed: running, with a snapshot.
func (k *killer) doomed(t *testing.T, name string) {
	t.Helper()
	k.must(t, k.ledgerRequest(name, 1))
	k.must(t, childRequest{Op: "start", Name: name})
	k.must(t, childRequest{Op: "snapshot", Name: name, Snap: "one"})
}

// become brings the main container into a status.
func (k *killer) become(t *testing.T, want container.Status) {
	t.Helper()
	for range 3 {
		now := k.status(t, mainName)
		var op string
		switch {
		case now == want:
			return
		case now == container.Suspended:
			op = "resume"
		case now == container.Stopped:
			op = "start"
		case want == container.Suspended:
			op = "suspend"
		default:
			op = "stop"
		}
		k.must(t, childRequest{Op: op, Name: mainName})
	}
	t.Fatalf("%s is %s, not %s", mainName, k.status(t, mainName), want)
}

// once is one round: something is killed, and all must be well.
func (k *killer) once(t *testing.T) {
	t.Helper()
	op, victim := chooseKill(k.rand)
	req := k.prepare(t, op)
	limit := k.typical[op]
	if victim == victimCRIU { // it lives for a part of it only
		limit /= 4
	}
	delay := time.Duration(k.rand.Int64N(int64(limit)))
	if op == "rollback" {
		k.l.mayGoBack(&k.base)
	}
	k.l.write()
	ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
	defer cancel()
	c, err := k.spawn(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	hit, err := k.strike(c, victim, delay, k.rand)
	if err != nil {
		t.Fatal(err)
	}
	what := fmt.Sprintf("round %d: %s, %s after %v (%s)", k.round, op, victim, delay.Round(time.Millisecond), hit)
	reply, err := c.reply()
	if err == nil {
		what += ", it said: " + reply.String()
	}
	if ctx.Err() != nil {
		t.Fatalf("%s: does not end\n%s", what, k.logs())
	}
	left := k.leftAlone(t, victim, req.Name)
	k.repair(t)
	k.l.pause()
	came := k.cameTo(t, req, victim)
	took := time.Since(c.began).Round(time.Millisecond)
	k.tally.add(op, victim, hit != "", came)
	k.putRight(t, req)
	k.wantClean(t)
	k.testify(t, op, came)
	t.Logf("%s: %s; %s, %v", what, left, came, took)
}

// leftAlone watches the container without running a command: nothing may stand
// still, unless nobody is there to see.
func (k *killer) leftAlone(t *testing.T, victim, name string) string {
	t.Helper()
	if victim == victimSupervisor {
		return "next command"
	}
	began := time.Now()
	for {
		frozen, err := k.frozen(t, name)
		if err != nil {
			t.Fatal(err)
		}
		if !frozen {
			break
		}
		if time.Since(began) > thawedWithin {
			t.Fatalf("%s is frozen %v after the kill, nothing was run since\n%s", name, thawedWithin, k.logs())
		}
		time.Sleep(5 * time.Millisecond)
	}
	after := fmt.Sprintf("thawed after %v", time.Since(began).Round(time.Millisecond))
	if name != mainName || !k.goesOn(t) {
		return after
	}
	for !k.l.serves(100 * time.Millisecond) {
		if !k.goesOn(t) {
			return after + ", then it ended"
		}
		if time.Since(began) > servedWithin {
			t.Fatalf("%s runs and does not serve, nothing was run since the kill\n%s", name, k.logs())
		}
	}
	return after + fmt.Sprintf(", served after %v", time.Since(began).Round(time.Millisecond))
}

func (k *killer) frozen(t *testing.T, name string) (bool, error) {
	t.Helper()
	info, err := k.h.Containers.Get(t.Context(), name)
	if err != nil {
		return false, nil //nolint:nilerr // created or destroyed half way
	}
	g, err := quota.Open(info.Config.CgroupName())
	if err != nil {
		return false, err
	}
	return g.Frozen()
}

// goesOn says whether the container runs and no interrupted operation is on its
// way to end it.
func (k *killer) goesOn(t *testing.T) bool {
	t.Helper()
	info := k.info(t, mainName)
	in := info.State.Intent
	return info.Status == container.Running && (in == nil || in.Op == "snapshot" || in.Step == "dumping")
}

// repair must succeed, and leave nothing for a second one.
func (k *killer) repair(t *testing.T) {
	t.Helper()
	k.must(t, childRequest{Op: "repair"})
	if again := k.must(t, childRequest{Op: "repair"}); len(again.Done) > 0 {
		t.Fatalf("the second repair had still to do: %v", again.Done)
	}
	k.wantClean(t)
}

// cameTo checks what is allowed as the outcome of an operation that may have
// been killed, and says which it was.
func (k *killer) cameTo(t *testing.T, req childRequest, victim string) string {
	t.Helper()
	if req.Name != mainName {
		info, err := k.h.Containers.Get(t.Context(), req.Name)
		if err != nil {
			return "absent"
		}
		return string(info.Status)
	}
	now := k.status(t, mainName)
	came := string(now)
	allowed := map[string][]container.Status{
		"snapshot": {container.Running}, "rollback": {container.Running},
		"suspend": {container.Running, container.Suspended}, "resume": {container.Running, container.Suspended},
		"start": {container.Running, container.Stopped}, "stop": {container.Running, container.Stopped},
	}[req.Op]
	fits := false
	for _, s := range allowed {
		fits = fits || s == now
	}
	if !fits && victim == victimCRIU && k.injured(t) {
		k.injuries++
		return cameInjured
	}
	if !fits {
		t.Errorf("after a killed %s the container is %s\n%s", req.Op, now, k.logs())
	}
	k.become(t, container.Running)
	k.l.settle(t)
	if req.Op == "rollback" {
		came = "as before"
		if k.l.went {
			came = cameReverted
		}
	}
	return came
}

// injured says whether init has ended because CRIU was killed while it had its
// own code where a process executes: for a moment at the beginning and at the end
// of a dump nobody else knows what was there. What was acknowledged is on disk.
func (k *killer) injured(t *testing.T) bool {
	t.Helper()
	said, err := os.ReadFile(k.h.Containers.LogFile(mainName))
	if err != nil {
		t.Fatal(err)
	}
	crashes := 0
	for _, signal := range []string{"SIGTRAP: ", "SIGSEGV: ", "SIGILL: ", "SIGBUS: "} { // Go catches and prints them
		crashes += strings.Count(string(said), signal)
	}
	before := k.crashes
	k.crashes = crashes
	return crashes > before || k.crashed(t)
}

// crashed says whether init has ended by such a signal before it could print it: in
// the code of others every signal is blocked, and a fault then ends a process at once.
// How it ended is unknown (-1) when its supervisor had been killed in an earlier round.
func (k *killer) crashed(t *testing.T) bool {
	t.Helper()
	last := k.info(t, mainName).State.LastExit
	return last != nil && slices.Contains([]int{-1, 128 + int(syscall.SIGTRAP), 128 + int(syscall.SIGSEGV), 128 + int(syscall.SIGILL), 128 + int(syscall.SIGBUS)}, last.Code)
}

// putRight undoes what a round was about.
func (k *killer) putRight(t *testing.T, req childRequest) {
	t.Helper()
	k.l.pause()
	k.become(t, container.Running)
	k.l.settle(t)
	k.l.mayGoBack(nil)
	if req.Name != mainName {
		if _, err := k.h.Containers.Get(t.Context(), req.Name); err == nil {
			k.must(t, childRequest{Op: "destroy", Name: req.Name})
		}
	}
	if req.Op == "snapshot" {
		k.do(t, childRequest{Op: "forget", Name: mainName, Snap: req.Snap}) // it may not be there
	}
}

// testify asks over the connection that was there before the round. What ends
// or reverts the container also ends that; then there is a new one.
func (k *killer) testify(t *testing.T, op, came string) {
	t.Helper()
	if op != "start" && op != "stop" && came != cameReverted && came != cameInjured {
		if _, err := k.witness.askWithin("show", ioTimeout); err != nil {
			t.Errorf("the connection has not survived: %v", err)
		}
		return
	}
	if k.witness != nil {
		k.witness.conn.Close()
	}
	var err error
	if k.witness, err = dialLedger(k.l.addr); err != nil {
		t.Fatal(err)
	}
}
