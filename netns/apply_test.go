package netns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeNamed makes a bridge of the host that is up, with an address for each
// prefix.
func bridgeNamed(t testing.TB, h *netlink.Handle, name string, mtu int, addresses ...string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	b := &netlink.Bridge{LinkAttrs: attrs}
	must(t, h.LinkAdd(b))
	t.Cleanup(func() { must(t, h.LinkDel(b)) })
	for _, a := range addresses {
		must(t, addAddress(h, b, netip.MustParsePrefix(a)))
	}
	must(t, h.LinkSetUp(b))
}

// tidyUp takes the container down at the test's end.
func tidyUp(t testing.TB, c Config) {
	t.Helper()
	t.Cleanup(func() {
		must(t, Leave(ctx, c, false))
		must(t, Forget(ctx))
	})
}

// steps runs an operation and returns what it has changed.
func steps(t testing.TB, op func(context.Context) error) []string {
	t.Helper()
	var out []string
	must(t, op(context.WithValue(ctx, faultKey{}, func(what string) error {
		out = append(out, what)
		return nil
	})))
	return slices.DeleteFunc(out, func(s string) bool { return s == applyFilter || s == applyLimits })
}

// everything is what one host and one container have of the network.
func everything(t testing.TB, h *netlink.Handle, ct space) string {
	t.Helper()
	var lines []string
	list := func(where string) func(h *netlink.Handle) error {
		return func(h *netlink.Handle) error {
			links, err := h.LinkList()
			if err != nil {
				return err
			}
			names := map[int]string{}
			for _, l := range links {
				a := l.Attrs()
				names[a.Index] = a.Name
				lines = append(lines, fmt.Sprintf("%s link %s %s mtu %d up %v master %d", where, a.Name, a.HardwareAddr, a.MTU, a.Flags&net.FlagUp != 0, a.MasterIndex))
			}
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				if err := listIP(h, family, names, func(format string, args ...any) {
					lines = append(lines, where+" "+fmt.Sprintf(format, args...))
				}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	must(t, list("host")(h))
	ct.within(t, list("container"))
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func listIP(h *netlink.Handle, family int, names map[int]string, add func(string, ...any)) error {
	addrs, err := h.AddrList(nil, family)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() && !linkPattern.MatchString(names[a.LinkIndex]) && names[a.LinkIndex] != "eth0" {
			continue // the kernel makes them when it comes to it
		}
		add("address %s on %s", a.IPNet, names[a.LinkIndex])
	}
	routes, err := h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue // multicast and local ones follow the addresses
		}
		add("route %s via %s on %s type %d table %d metric %d", r.Dst, r.Gw, names[r.LinkIndex], r.Type, r.Table, r.Priority)
	}
	rules, err := h.RuleList(family)
	if err != nil {
		return err
	}
	for _, r := range rules {
		add("rule %s", r)
	}
	for index := range names {
		neighbours, err := h.NeighList(index, family)
		if err != nil {
			return err
		}
		proxies, err := h.NeighProxyList(index, family)
		if err != nil {
			return err
		}
		for _, n := range append(neighbours, proxies...) {
			if n.State == netlink.NUD_PERMANENT || n.Flags&netlink.NTF_PROXY != 0 {
				add("neighbour %s %s flags %d on %s", n.IP, n.HardwareAddr, n.Flags, names[index])
			}
		}
	}
	return nil
}

// samples are configurations that have nearly everything.
func samples() map[string]Config {
	routed := config(1, "10.9.0.5/32", "fd09::5/128", "198.51.100.77/32", "2001:db8:1::77/128")
	routed.Interfaces[0].Routes = []Route{route("10.1.0.0/16", ""), route("fd01::/64", "")}
	onBridge := config(1)
	onBridge.Interfaces = []Interface{bridged("eth0", 0, "br0", "10.8.0.5/24", "10.8.0.6/24", "fd08::5/64")}
	onBridge.Interfaces[0].Gateways = []netip.Addr{netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("fd08::1")}
	onBridge.Interfaces[0].Routes = []Route{route("10.1.0.0/16", "10.8.0.2")}
	onBridge.Interfaces[0].MTU = 1400
	own := config(1)
	own.Interfaces = []Interface{bridged("eth0", 0, OwnBridge, "10.158.0.5/16", "fd9c:7c71:9e::5/64")}
	several := config(1, "10.9.0.5/32", "fd09::5/128")
	several.Interfaces = append(several.Interfaces, onBridge.Interfaces[0], own.Interfaces[0])
	several.Interfaces[1].Name, several.Interfaces[1].Index = "lan", 1
	several.Interfaces[2].Name, several.Interfaces[2].Index, several.Interfaces[2].MAC = "out", 35, "02:00:00:00:00:07"
	return map[string]Config{"routed": routed, "bridged": onBridge, "own bridge": own, "several": several, "none": config(1)}
}

func TestApplyingTwiceDoesNothing(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500)
	for name, c := range samples() {
		t.Run(name, func(t *testing.T) {
			ct := newSpace(t, true)
			tidyUp(t, c)
			must(t, Apply(ctx, Target{PID: ct.pid}, c))
			once := everything(t, h, ct)
			for _, target := range []Target{{PID: ct.pid}, {PID: ct.pid, Before: &c}, {}} {
				again := steps(t, func(ctx context.Context) error { return Apply(ctx, target, c) })
				if len(again) > 0 {
					t.Errorf("the second time: %q", again)
				}
			}
			if diff := cmp.Diff(once, everything(t, h, ct)); diff != "" {
				t.Error(diff)
			}
			report, err := Inspect(ctx, ct.pid, c)
			must(t, err)
			if len(report.Differences) > 0 {
				t.Errorf("differences: %+v", report.Differences)
			}
			for _, i := range report.Interfaces {
				for _, a := range i.Addresses {
					if a.State != AddressOK || !i.Up || !i.Present {
						t.Errorf("%s: %+v", i.Name, a)
					}
				}
				for _, r := range i.Routes {
					if !r.Present {
						t.Errorf("%s: %+v", i.Name, r)
					}
				}
			}
		})
	}
}

func TestRandomEditsOnARealHostEndAsWanted(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500, "10.0.0.1/24", "fd00::1/64")
	bridgeNamed(t, h, "br1", 9000)
	r := rand.New(rand.NewPCG(1, 5))
	ct := newSpace(t, true)
	before := randomConfig(r)
	tidyUp(t, before)
	must(t, Apply(ctx, Target{PID: ct.pid}, before))
	for n := range 60 {
		c := randomConfig(r)
		stage := pick(r, Joined, Joined, Joined, Held)
		if err := Apply(ctx, Target{PID: ct.pid, Stage: stage, Before: &before}, c); err != nil {
			t.Fatalf("round %d: %v\nfrom %+v\nto %+v", n, err, before.Interfaces, c.Interfaces)
		}
		again := steps(t, func(ctx context.Context) error { return Apply(ctx, Target{PID: ct.pid, Stage: stage}, c) })
		if len(again) > 0 {
			t.Fatalf("round %d: the second time: %q\nfrom %+v\nto %+v", n, again, before.Interfaces, c.Interfaces)
		}
		if stage == Joined {
			policy, err := PolicyOf(ctx, c)
			must(t, err)
			if !policy.InEffect() {
				t.Fatalf("round %d: missing %v, unwanted %v", n, policy.Missing, policy.Unwanted)
			}
		}
		before = c
	}
	must(t, Leave(ctx, before, false))
	must(t, Forget(ctx))
}

func TestFaultInAnEditLeavesAllAsBefore(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500)
	all := samples()
	edited := all["routed"]
	edited.Interfaces = slices.Clone(edited.Interfaces)
	edited.Interfaces[0].Addresses = prefixes("10.9.0.6/32", "fd09::5/128", "198.51.100.78/32")
	edited.Interfaces[0].Routes = []Route{{To: netip.MustParsePrefix("10.1.0.0/16"), Metric: 5}}
	edited.Interfaces[0].NAT = true
	edited.Interfaces[0].MTU, edited.Interfaces[0].MAC = 1400, "02:00:00:00:00:09"
	for name, test := range map[string]struct{ from, to Config }{
		"routed":           {all["routed"], edited},
		"to a bridge":      {all["routed"], all["bridged"]},
		"from a bridge":    {all["bridged"], all["routed"]},
		"more":             {all["bridged"], all["several"]},
		"less":             {all["several"], all["routed"]},
		"nothing any more": {all["routed"], all["none"]},
	} {
		t.Run(name, func(t *testing.T) {
			ct := newSpace(t, true)
			tidyUp(t, test.from)
			must(t, Apply(ctx, Target{PID: ct.pid}, test.from))
			must(t, Apply(ctx, Target{PID: ct.pid}, test.to))
			must(t, Apply(ctx, Target{PID: ct.pid}, test.from))
			before := everything(t, h, ct)
			for n := 0; ; n++ {
				faulty, met := faultAt(n)
				last := ""
				watched := context.WithValue(faulty, faultKey{}, func(what string) error {
					err := faulty.Value(faultKey{}).(func(string) error)(what)
					if err != nil {
						last = what
					}
					return err
				})
				err := Apply(watched, Target{PID: ct.pid, Before: &test.from}, test.to)
				if !*met {
					must(t, err)
					break
				}
				if strings.HasPrefix(last, "remove link") && strings.Contains(err.Error(), "undo") {
					break // another one is gone for good
				}
				if err == nil || !strings.Contains(err.Error(), "injected") || strings.Contains(err.Error(), "undo") {
					t.Fatalf("step %d: got %v", n, err)
				}
				if diff := cmp.Diff(before, everything(t, h, ct)); diff != "" {
					t.Fatalf("step %d: %v:\n%s", n, err, diff)
				}
			}
		})
	}
}

// What is cut off leaves what its changes up to there have done, without undoing.
func TestCutOffAnywhereTheNextApplyEndsAsWanted(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500)
	all := samples()
	for _, pair := range [][2]string{{"routed", "several"}, {"several", "bridged"}, {"none", "routed"}} {
		a, b := all[pair[0]], all[pair[1]]
		t.Run(pair[0]+" to "+pair[1], func(t *testing.T) {
			ct := newSpace(t, true)
			tidyUp(t, a)
			for n := 0; ; n += 3 {
				must(t, Apply(ctx, Target{PID: ct.pid, Before: &b}, a))
				more := cutOff(t, ct, b, n)
				must(t, Apply(ctx, Target{PID: ct.pid}, pick(rand.New(rand.NewPCG(uint64(n), 1)), a, b)))
				must(t, Apply(ctx, Target{PID: ct.pid}, b))
				again := steps(t, func(ctx context.Context) error { return Apply(ctx, Target{PID: ct.pid}, b) })
				if len(again) > 0 {
					t.Fatalf("cut at %d: %q", n, again)
				}
				if !more {
					break
				}
			}
		})
	}
}

// cutOff does the first n changes; more says whether there are others.
func cutOff(t *testing.T, ct space, c Config, n int) (more bool) {
	t.Helper()
	must(t, c.withKernel(ctx, ct.pid, func(k *kernel) error {
		r, err := k.survey(Target{PID: ct.pid})
		if err != nil {
			return err
		}
		changes := diff(r.out, r.want)
		more = n < len(changes)
		for _, ch := range changes[:min(n, len(changes))] {
			if err := k.perform(ch); err != nil {
				return err
			}
		}
		return nil
	}))
	return more
}

func TestFaultInAnyMessageLeavesAllAsBefore(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500)
	all := samples()
	ct := newSpace(t, true)
	from, to := all["routed"], all["several"]
	from.Interfaces = slices.Clone(from.Interfaces)
	from.Interfaces[0].Addresses = prefixes("10.9.0.9/32", "fd09::5/128", "198.51.100.78/32")
	from.Interfaces[0].MTU = 1400
	tidyUp(t, from)
	for name, pair := range map[string][2]Config{"edit": {from, to}, "first": {{UID: from.UID}, to}} {
		must(t, Apply(ctx, Target{PID: ct.pid}, pair[0]))
		must(t, Apply(ctx, Target{PID: ct.pid, Before: &pair[0]}, pair[1]))
		must(t, Apply(ctx, Target{PID: ct.pid, Before: &pair[1]}, pair[0]))
		before := everything(t, h, ct)
		for n := 0; ; n += 2 {
			left := n
			faulty := context.WithValue(ctx, callFaultKey{}, func() error {
				if left--; left == -1 {
					return unix.ENOBUFS
				}
				return nil
			})
			err := Apply(faulty, Target{PID: ct.pid, Before: &pair[0]}, pair[1])
			if err == nil {
				if left >= 0 && n < 40 {
					t.Fatalf("%s: only %d messages", name, n)
				}
				break
			}
			if !errors.Is(err, unix.ENOBUFS) || strings.Contains(err.Error(), "undo") {
				t.Fatalf("%s, message %d: got %v", name, n, err)
			}
			if diff := cmp.Diff(before, everything(t, h, ct)); diff != "" {
				t.Fatalf("%s, message %d: %v:\n%s", name, n, err, diff)
			}
		}
	}
	must(t, Apply(ctx, Target{PID: ct.pid}, from))
}
