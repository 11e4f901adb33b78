package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// setter is a container whose configuration changes at random, and what it must be.
type setter struct {
	*site
	rand  *rand.Rand
	name  string
	model container.Config
}

// Configurations are compared as what they mean.
var byMeaning = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// newSetter makes a running ledger, and a neighbour with an address that it can't
// have.
func newSetter(t *testing.T) *setter {
	t.Helper()
	s := &setter{site: newSite(t), rand: killRand(t), name: mainName}
	s.addLedger(t, s.name, ballastMiB).hangUp()
	req := s.ledgerRequest("neighbour", 0)
	req.Address = neighbourAddress
	s.must(t, req)
	s.model = s.info(t, s.name).Config
	s.agree(t, "at first")
	return s
}

// agree fails unless model, file and kernel are the same.
func (s *setter) agree(t *testing.T, when string) {
	t.Helper()
	info := s.info(t, s.name)
	if info.State.Intent != nil {
		t.Fatalf("%s: an intent is left: %+v", when, info.State.Intent)
	}
	if diff := cmp.Diff(s.model, s.onDisk(t), byMeaning); diff != "" {
		t.Fatalf("%s: the file is another (-model +file):\n%s", when, diff)
	}
	if wrong := s.kernel(t, info); len(wrong) > 0 {
		t.Fatalf("%s: the kernel is another: %s\n%s", when, strings.Join(wrong, "; "), s.logs())
	}
}

// onDisk reads the configuration file, whose form is documented.
func (s *setter) onDisk(t *testing.T) (c container.Config) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.state, "containers", s.name, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	file := struct{ Data *container.Config }{&c}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return c
}

// kernel compares what the kernel holds of a running container with the model.
func (s *setter) kernel(t *testing.T, info container.Info) (wrong []string) {
	t.Helper()
	g, err := quota.Open(info.Config.CgroupName())
	if err != nil {
		t.Fatal(err)
	}
	diff, err := g.Compare(s.model.Limits)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diff {
		wrong = append(wrong, d.String())
	}
	_, net, err := s.h.Containers.InspectNetwork(context.WithoutCancel(t.Context()), s.name)
	if err != nil {
		t.Fatal(err)
	}
	wrong = append(wrong, net.Wrong()...)
	if name, err := hostnameOf(info.Run.PID); err != nil || name != s.model.Hostname {
		wrong = append(wrong, fmt.Sprintf("host name %q instead of %q (%v)", name, s.model.Hostname, err))
	}
	inside, routed := addressesOf(t, info.Run.PID), routesTo(t, s.model)
	var want []string
	for _, p := range s.model.Network.Addresses() {
		want = append(want, p.Addr().String())
	}
	slices.Sort(want)
	for where, have := range map[string][]string{"inside": inside, "routed by the host": routed} {
		if diff := cmp.Diff(want, have, cmpopts.EquateEmpty()); diff != "" {
			wrong = append(wrong, where+": "+diff)
		}
	}
	return wrong
}

// addressesOf are those inside, without what every link has by itself.
func addressesOf(t *testing.T, pid int) (out []string) {
	t.Helper()
	ns, err := vnetns.GetFromPid(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	all, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if !a.IP.IsLinkLocalUnicast() && !a.IP.IsLoopback() {
			out = append(out, a.IP.String())
		}
	}
	slices.Sort(out)
	return out
}

// routesTo are the single addresses that the host sends to the links of a container.
func routesTo(t *testing.T, c container.Config) (out []string) {
	t.Helper()
	for _, i := range c.Network.Interfaces {
		link, err := netlink.LinkByName(hostLink(c, i.Index))
		if err != nil {
			return []string{i.Name + ": " + err.Error()}
		}
		all, err := netlink.RouteList(link, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Dst == nil {
				continue
			}
			ones, bits := r.Dst.Mask.Size()
			if ones == bits && !r.Dst.IP.IsLinkLocalUnicast() {
				out = append(out, r.Dst.IP.String())
			}
		}
	}
	slices.Sort(out)
	return out
}

// hostnameOf looks from a thread that comes back.
func hostnameOf(pid int) (name string, err error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
	if err != nil {
		return "", err
	}
	defer theirs.Close()
	runtime.LockOSThread()
	ours, err := os.Open("/proc/thread-self/ns/uts")
	if err != nil {
		return "", err
	}
	defer ours.Close()
	var u unix.Utsname
	if err = unix.Setns(int(theirs.Fd()), unix.CLONE_NEWUTS); err == nil {
		err = unix.Uname(&u)
	}
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWUTS); back != nil {
		return "", back // and the thread is not used again
	}
	runtime.UnlockOSThread()
	return unix.ByteSliceToString(u.Nodename[:]), err
}

const (
	setRounds      = 1000
	setRoundsShort = 150
)

// Changes that can be and ones that can't, mixed: after each the kernel, the file
// and a model that knows only what was accepted are the same, and the client has
// noticed nothing.
func TestRandomChangesOfARunningContainerKeepToTheModel(t *testing.T) {
	s := newSetter(t)
	l, err := dialLedger(s.firstAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer l.conn.Close()
	rounds, refused := setRounds, 0
	if testing.Short() {
		rounds = setRoundsShort
	}
	began := time.Now()
	for i := range rounds {
		what := randomChanges(s.rand)
		next, want := s.predict(what)
		_, err := s.h.Containers.Set(t.Context(), s.name, container.Change{Edit: what.edit, NoProbe: true})
		when := fmt.Sprintf("change %d, %q (%v)", i, what, err)
		if (err == nil) != (want == nil) {
			t.Fatalf("%s: the model says: %v", when, want)
		}
		if err == nil {
			s.model = next
		} else {
			refused++
		}
		s.agree(t, when)
		if _, err := l.askWithin("show", ioTimeout); err != nil {
			t.Fatalf("%s: the client is cut off: %v", when, err)
		}
	}
	t.Logf("%d changes, %d of them refused, in %v", rounds, refused, time.Since(began).Round(time.Millisecond))
	if refused == 0 || refused == rounds {
		t.Error("these were no mixed changes")
	}
	s.must(t, childRequest{Op: "suspend", Name: s.name})
	s.must(t, childRequest{Op: "resume", Name: s.name})
	s.agree(t, "after suspend and resume")
	s.must(t, childRequest{Op: "stop", Name: s.name})
	s.must(t, childRequest{Op: "start", Name: s.name})
	s.agree(t, "after a restart")
}

func (s *setter) firstAddress() string {
	return fmt.Sprintf("%s:%d", s.model.Network.Addresses()[0].Addr(), ledgerPort)
}

// predict is what must come of changes: another configuration, or a refusal.
func (s *setter) predict(what changes) (next container.Config, refusal error) {
	raw, err := json.Marshal(s.model)
	if err == nil {
		err = json.Unmarshal(raw, &next)
	}
	if err == nil {
		err = what.edit(&next)
	}
	if err == nil {
		err = next.Validate()
	}
	if err == nil {
		err = impossible(s.model, next)
	}
	return next, err
}

const (
	setKills      = 100
	setKillsShort = 15
)

// A change that is killed is there whole or not at all, after the next repair.
func TestAChangeThatIsKilledIsWholeOrNotThere(t *testing.T) {
	s := newSetter(t)
	kills, found, came := setKills, 0, 0
	if testing.Short() {
		kills = setKillsShort
	}
	for i := range kills {
		what := randomChanges(s.rand)
		next, refusal := s.predict(what)
		open := s.killOne(t, what)
		if open {
			found++
		}
		s.must(t, childRequest{Op: "repair"})
		when := fmt.Sprintf("kill %d, %q, intent left %v", i, what, open)
		if again := s.must(t, childRequest{Op: "repair"}); len(again.Done) > 0 {
			t.Fatalf("%s: the second repair had still to do: %v", when, again.Done)
		}
		if now := s.onDisk(t); refusal == nil && cmp.Equal(next, now, byMeaning) {
			if !cmp.Equal(s.model, now, byMeaning) {
				came++
			}
			s.model = next
		}
		s.agree(t, when)
		s.wantClean(t)
	}
	s.killSuspended(t)
	t.Logf("%d kills, %d of them left an intent, %d changes came through", kills, found, came)
	if found == 0 {
		t.Error("no kill was in the middle of a change")
	}
}

// killSuspended does the same to a suspended one, which has only the host's side.
func (s *setter) killSuspended(t *testing.T) {
	t.Helper()
	s.must(t, childRequest{Op: "suspend", Name: s.name})
	for range 6 {
		what := changes{"ip+ " + spareAddresses[s.rand.IntN(5)], "ip- " + spareAddresses[s.rand.IntN(5)], fmt.Sprintf("pids %d", 200+s.rand.IntN(200))}
		next, refusal := s.predict(what)
		s.killOne(t, what)
		s.must(t, childRequest{Op: "repair"})
		if now := s.onDisk(t); refusal == nil && cmp.Equal(next, now, byMeaning) {
			s.model = next
		}
		if _, net, err := s.h.Containers.InspectNetwork(t.Context(), s.name); err != nil || len(net.Wrong()) > 0 {
			t.Errorf("suspended, %q: %v, %v", what, net.Wrong(), err)
		}
		var want []string
		for _, p := range s.model.Network.Addresses() {
			want = append(want, p.Addr().String())
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, swallowedRoutes(t), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("suspended, %q: the host swallows other addresses:\n%s", what, diff)
		}
		s.wantClean(t)
	}
	s.must(t, childRequest{Op: "resume", Name: s.name})
	s.agree(t, "after it was suspended")
}

// swallowedRoutes are the single addresses that the host throws packets away for.
func swallowedRoutes(t *testing.T) (out []string) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Type: unix.RTN_BLACKHOLE}, netlink.RT_FILTER_TYPE)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			out = append(out, r.Dst.IP.String())
		}
	}
	slices.Sort(out)
	return out
}

// killOne kills a change when it has begun, a moment later, and says whether it was
// in the middle.
func (s *setter) killOne(t *testing.T, what changes) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), childTimeout)
	defer cancel()
	stateFile := filepath.Join(s.state, "containers", s.name, "state.json")
	before, err := os.Stat(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.spawn(ctx, childRequest{Op: "set", Name: s.name, Changes: what})
	if err != nil {
		t.Fatal(err)
	}
	for c.running() {
		if now, err := os.Stat(stateFile); err == nil && !os.SameFile(before, now) {
			break
		}
		time.Sleep(200 * time.Microsecond)
	}
	time.Sleep(time.Duration(s.rand.Int64N(int64(6 * time.Millisecond))))
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-c.ended
	return s.info(t, s.name).State.Intent != nil
}

// What was changed for a while ends by itself, when nobody runs a command and who
// asked for it is dead; with the supervisor dead too, at the next command.
func TestWhatIsChangedForAWhileEndsByItself(t *testing.T) {
	s := newSetter(t)
	what := changes{"memory 512", "pids 333", "hostname beta", "ip+ " + spareAddresses[0]}
	saved := s.model
	for _, supervised := range []bool{true, false} {
		c, err := s.spawn(t.Context(), childRequest{Op: "set", Name: s.name, Changes: what, For: 5 * time.Second, Linger: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		next, refusal := s.predict(what)
		if refusal != nil {
			t.Fatal(refusal)
		}
		awaitThat(t, "the change is in effect", func() bool { return cmp.Equal(next, s.info(t, s.name).Config, byMeaning) })
		s.model = next
		if wrong := s.kernel(t, s.info(t, s.name)); len(wrong) > 0 {
			t.Errorf("while it lasts: %v", wrong)
		}
		s.model = saved
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-c.ended
		if !supervised {
			s.killHelper(t, "supervise")
			until := s.info(t, s.name).State.Overlay[0].Until
			time.Sleep(time.Until(until)) // the point is that this moment passes
			s.must(t, childRequest{Op: "repair"})
		}
		awaitThat(t, "it is taken back", func() bool { return len(s.info(t, s.name).State.Overlay) == 0 })
		s.agree(t, fmt.Sprintf("after its end, with a supervisor: %v", supervised))
	}
	s.wantClean(t)
}

func (s *setter) killHelper(t *testing.T, kind string) {
	t.Helper()
	find := func() ([]proc, error) { return s.helpers(kind, s.name) }
	found, err := find()
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if err := killExactly(found[0], find); err != nil {
		t.Fatal(err)
	}
}

func awaitThat(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// One that stands still follows too, and goes on as it was told meanwhile.
func TestAPausedAndASuspendedOneFollow(t *testing.T) {
	s := newSetter(t)
	set := func(what changes) {
		t.Helper()
		next, refusal := s.predict(what)
		if refusal != nil {
			t.Fatal(refusal)
		}
		if _, err := s.h.Containers.Set(t.Context(), s.name, container.Change{Edit: what.edit, NoProbe: true}); err != nil {
			t.Fatal(err)
		}
		s.model = next
	}
	if err := s.h.Containers.Pause(t.Context(), s.name); err != nil {
		t.Fatal(err)
	}
	set(changes{"memory 300", "pids 222", "hostname beta", "ip+ " + spareAddresses[0]})
	s.agree(t, "while it is paused")
	if now := s.status(t, s.name); now != container.Paused {
		t.Errorf("it is %s", now)
	}
	if err := s.h.Containers.Unpause(t.Context(), s.name); err != nil {
		t.Fatal(err)
	}
	s.agree(t, "after it was paused")

	s.must(t, childRequest{Op: "suspend", Name: s.name})
	set(changes{"memory 256", "pids 0", "ip+ " + spareAddresses[3], "rate 100", "nic+ eth1"})
	if _, err := s.h.Containers.Set(t.Context(), s.name, container.Change{Edit: changes{"pids 100", "hostname gamma"}.edit}); !errors.Is(err, container.ErrState) {
		t.Errorf("another host name, suspended: %v", err)
	}
	s.wantClean(t)
	s.must(t, childRequest{Op: "resume", Name: s.name})
	s.agree(t, "after it was suspended")

	s.must(t, childRequest{Op: "snapshot", Name: s.name, Snap: "one"})
	then := s.model
	set(changes{"memory 512", "pids 150", "hostname alpha", "ip- " + spareAddresses[0], "nic- eth1", "publish 8000"})
	s.must(t, childRequest{Op: "rollback", Name: s.name, Snap: "one"})
	s.model = then
	s.agree(t, "after a rollback to before")
}
