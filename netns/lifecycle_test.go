package netns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

func TestAttachReplacesAStaleLink(t *testing.T) {
	requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	plug(t, ct, c)
	must(t, Attach(ctx, ct.pid, c))
	must(t, Attach(ctx, ct.pid, c))
	must(t, Join(ctx, c))
	exchange(t, host, ct, "10.9.0.5")
	exchange(t, host, ct, "fd09::5")
}

func TestAttachMovesToAnotherProcess(t *testing.T) {
	requireHost(t)
	host, before, after := hostSpace(t), newSpace(t, true), newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	plug(t, before, c)
	must(t, Attach(ctx, after.pid, c))
	must(t, Join(ctx, c))
	exchange(t, host, after, "10.9.0.5")
}

func TestLeaveIsCompleteFromEveryState(t *testing.T) {
	h := requireHost(t)
	clean := inventory(t, h)
	for name, prepare := range map[string]func(t *testing.T, c Config, pid int){
		"absent":   func(*testing.T, Config, int) {},
		"attached": func(t *testing.T, c Config, pid int) { must(t, Attach(ctx, pid, c)) },
		"joined":   func(t *testing.T, c Config, pid int) { must(t, Attach(ctx, pid, c)); must(t, Join(ctx, c)) },
		"silenced": func(t *testing.T, c Config, pid int) {
			must(t, Attach(ctx, pid, c))
			must(t, Join(ctx, c))
			must(t, Silence(ctx, c))
		},
		"blackholed": func(t *testing.T, c Config, pid int) {
			must(t, Attach(ctx, pid, c))
			must(t, Join(ctx, c))
			must(t, Leave(ctx, c, true))
		},
		"left": func(t *testing.T, c Config, pid int) {
			must(t, Attach(ctx, pid, c))
			must(t, Join(ctx, c))
			must(t, Leave(ctx, c, false))
		},
		"blackholed, never joined": func(t *testing.T, c Config, _ int) { must(t, Leave(ctx, c, true)) },
	} {
		t.Run(name, func(t *testing.T) {
			ct := newSpace(t, true)
			c := config(1, "10.9.0.5/32", "fd09::5/128")
			c.Interfaces[0].NAT = true
			prepare(t, c, ct.pid)
			must(t, Leave(ctx, c, false))
			must(t, Forget(ctx))
		})
	}
	if after := inventory(t, h); after != clean {
		t.Errorf("before:\n%s\nafter:\n%s", clean, after)
	}
}

func TestSilenceIsUndoneByJoin(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	routeBack(t, out)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].NAT = true
	plug(t, ct, c)
	must(t, Silence(ctx, c))
	if _, err := out.dial("10.9.0.5:9", 300*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("want silence, got %v", err)
	}
	must(t, Join(ctx, c))
	if _, err := out.dial("10.9.0.5:9", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("want the container's own refusal, got %v", err)
	}
}

func TestPrepareLeavesNothingForJoinToAdd(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	t.Cleanup(func() { must(t, Leave(ctx, c, false)); must(t, Forget(ctx)) })
	must(t, Prepare(ctx, c))
	prepared := ruleCount(t)
	if links := inventory(t, h); strings.Contains(links, "route") || !strings.Contains(prepared, "fd09::5:"+c.hostLink(0)) {
		t.Errorf("got %s %s", links, prepared)
	}
	plug(t, ct, c)
	if joined := ruleCount(t); joined != prepared {
		t.Errorf("prepared %s, joined %s", prepared, joined)
	}
}

func TestJoinWithoutNATRemovesTheEntry(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].NAT = true
	plug(t, ct, c)
	c.Interfaces[0].NAT = false
	must(t, Join(ctx, c))
	if got := ruleCount(t); strings.Contains(got, c.hostLink(0)) {
		t.Errorf("got %s", got)
	}
}

func TestNATEntryPassesToTheNextHolder(t *testing.T) {
	requireHost(t)
	one, two := newSpace(t, true), newSpace(t, true)
	a, b := config(1, "10.9.0.5/32"), config(2, "10.9.0.5/32")
	a.Interfaces[0].NAT, b.Interfaces[0].NAT = true, true
	plug(t, one, a)
	must(t, Leave(ctx, a, true))
	plug(t, two, b)
	if got := ruleCount(t); !strings.Contains(got, "10.9.0.5:"+b.hostLink(0)) {
		t.Errorf("got %s", got)
	}
}

func TestAnAddressInUseIsRefused(t *testing.T) {
	h := requireHost(t)
	out, one, two := outside(t, h), newSpace(t, true), newSpace(t, true)
	_ = out
	plug(t, one, config(1, "10.9.0.5/32", "fd09::5/128"))
	up0, err := h.LinkByName("up0")
	must(t, err)
	for _, a := range []string{"10.9.0.8", "fd09::8"} {
		must(t, h.RouteAdd(&netlink.Route{Dst: ipNet(host(netip.MustParseAddr(a))), LinkIndex: up0.Attrs().Index, Protocol: RouteProtocol}))
	}
	for address, link := range map[string]string{
		"10.9.0.5/24":      "ct000000000001",
		"fd09::5/64":       "ct000000000001",
		"10.9.0.8/32":      "up0",
		"fd09::8/128":      "up0",
		"198.51.100.1/32":  "the host's own, on link up0",
		"2001:db8:1::1/64": "the host's own",
	} {
		c := config(2, "10.9.0.7/32", address)
		was := config(2, "10.9.0.7/32")
		for op, err := range map[string]error{
			"suspended": Apply(ctx, Target{Stage: Blackholed, Before: &was}, c),
			"attach":    Attach(ctx, two.pid, c), "prepare": Prepare(ctx, c), "join": Apply(ctx, Target{PID: two.pid}, c),
		} {
			if !errors.Is(err, ErrAddressInUse) || !strings.Contains(err.Error(), link) {
				t.Errorf("%s %s: want %s named, got %v", op, address, link, err)
			}
		}
	}
	if o, err := kernelOf(t).holderOf(netip.MustParseAddr("10.9.0.5")); err != nil || o.index == 0 {
		t.Errorf("the holder lost its route: %+v, %v", o, err)
	}
	// A free address of the network that up0 is on, and one that is suspended.
	c := config(2, "198.51.100.77/32", "10.9.0.99/32")
	must(t, Leave(ctx, c, true))
	plug(t, two, c)
}

func TestLeaveSparesTheAddressOfAnother(t *testing.T) {
	requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	suspended, running := config(1, "10.9.0.5/32", "fd09::5/128"), config(2, "10.9.0.5/32", "fd09::5/128")
	must(t, Leave(ctx, suspended, true))
	running.Interfaces[0].NAT = true
	plug(t, ct, running)
	must(t, Leave(ctx, suspended, true))
	must(t, Leave(ctx, suspended, false))
	exchange(t, host, ct, "10.9.0.5")
	exchange(t, host, ct, "fd09::5")
	if got := ruleCount(t); !strings.Contains(got, "10.9.0.5:"+running.hostLink(0)) {
		t.Errorf("NAT entry lost: %s", got)
	}
}

func TestProcessOfTheHostIsRefused(t *testing.T) {
	requireHost(t)
	c := config(1, "10.9.0.5/32")
	if err := Attach(ctx, os.Getpid(), c); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("attach: got %v", err)
	}
	if err := CleanLocks(ctx, os.Getpid()); !errors.Is(err, ErrHostNamespace) {
		t.Errorf("clean locks: got %v", err)
	}
}

func TestEndedProcessIsRefused(t *testing.T) {
	requireHost(t)
	cmd := exec.Command("true")
	must(t, cmd.Run())
	if err := Attach(ctx, cmd.Process.Pid, config(1)); !errors.Is(err, ErrNoProcess) {
		t.Errorf("got %v", err)
	}
}

func TestLinkThatIsNoVethIsLeftAlone(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.hostLink(0)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	must(t, h.LinkAdd(bridge))
	defer func() { must(t, h.LinkDel(bridge)) }()
	for op, err := range map[string]error{"attach": Attach(ctx, ct.pid, c), "join": Join(ctx, c), "leave": Leave(ctx, c, false)} {
		if !errors.Is(err, ErrLinkName) {
			t.Errorf("%s: got %v", op, err)
		}
	}
}

func TestJoinWithoutAttachNamesTheMissingLink(t *testing.T) {
	requireHost(t)
	if err := Join(ctx, config(1)); !errors.Is(err, ErrNoLink) || !strings.Contains(err.Error(), "ct000000000001") {
		t.Errorf("got %v", err)
	}
}

func TestReapDeletesOnlyWhatIsNotKept(t *testing.T) {
	requireHost(t)
	one, two := newSpace(t, true), newSpace(t, true)
	a, b := config(1, "10.9.0.5/32"), config(2, "10.9.0.6/32")
	a.Interfaces[0].NAT, b.Interfaces[0].NAT = true, true
	plug(t, one, a)
	plug(t, two, b)
	links, err := Links(ctx)
	must(t, err)
	if diff := cmp.Diff([]string{a.hostLink(0), b.hostLink(0)}, links); diff != "" {
		t.Error(diff)
	}
	deleted, err := Reap(ctx, []Config{b})
	must(t, err)
	if diff := cmp.Diff([]string{"link " + a.hostLink(0), "packet filter of 000000000001"}, deleted); diff != "" {
		t.Error(diff)
	}
	if got := ruleCount(t); strings.Contains(got, a.hostLink(0)) || !strings.Contains(got, b.hostLink(0)) {
		t.Errorf("NAT entries: %s", got)
	}
}

func TestForgetKeepsTheTableThatIsInUse(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].NAT = true
	plug(t, ct, c)
	must(t, Forget(ctx))
	must(t, Leave(ctx, c, true))
	must(t, Forget(ctx))
	if !strings.Contains(inventory(t, h), "table ctctl") {
		t.Error("the table of a suspended container is gone")
	}
	must(t, Leave(ctx, c, false))
	must(t, Forget(ctx))
	if strings.Contains(inventory(t, h), "table ctctl") {
		t.Error("the table is still there")
	}
}

func TestCleanLocksDeletesOnlyCRIUsTables(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	conn, err := openFilter(int(ct.ns.Fd()))
	must(t, err)
	defer func() { must(t, conn.CloseLasting()) }()
	for _, name := range []string{"CRIU-1", "CRIU-4711", "mine"} {
		table := conn.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
		drop := nftables.ChainPolicyDrop
		conn.AddChain(&nftables.Chain{
			Name: "out", Table: table, Type: nftables.ChainTypeFilter, Policy: &drop,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
		})
	}
	must(t, conn.Flush())
	must(t, CleanLocks(ctx, ct.pid))
	must(t, CleanLocks(ctx, ct.pid))
	tables, err := conn.ListTables()
	must(t, err)
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	if diff := cmp.Diff([]string{"mine"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestThreadsStayInTheHostsNamespace(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	boom := errors.New("boom")
	for range 20 {
		if err := enter(ct.ns, func() error { return boom }); !errors.Is(err, boom) {
			t.Errorf("got %v", err)
		}
	}
	home, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	threads, err := os.ReadDir("/proc/self/task")
	must(t, err)
	for _, thread := range threads {
		ns, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net")
		if err == nil && ns != home {
			t.Errorf("thread %s is in %s, not %s", thread.Name(), ns, home)
		}
	}
}

func BenchmarkAttachAndJoin(b *testing.B) {
	requireHost(b)
	ct := newSpace(b, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	plug(b, ct, c)
	var took [4]time.Duration
	for b.Loop() {
		start := time.Now()
		for i, do := range []func() error{
			func() error { return Silence(ctx, c) },
			func() error { return Leave(ctx, c, true) },
			func() error { return Attach(ctx, ct.pid, c) },
			func() error { return Join(ctx, c) },
		} {
			must(b, do())
			took[i] += time.Since(start)
			start = time.Now()
		}
	}
	for i, name := range []string{"silence", "leave", "attach", "join"} {
		b.ReportMetric(float64(took[i].Microseconds())/1000/float64(b.N), name+"-ms/op")
	}
}
