package netns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// port connects a space to a bridge of the host, as another machine on its LAN.
func port(t testing.TB, h *netlink.Handle, bridge, name string, addresses ...string) space {
	t.Helper()
	s := newSpace(t, false)
	b, err := h.LinkByName(bridge)
	must(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = name, b.Attrs().Index
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "lan0", PeerNamespace: netlink.NsFd(int(s.ns.Fd())), PeerTxQLen: -1}))
	l, err := h.LinkByName(name)
	must(t, err)
	t.Cleanup(func() { must(t, h.LinkDel(l)) })
	must(t, h.LinkSetUp(l))
	s.within(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("lan0")
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if err := addAddress(h, l, netip.MustParsePrefix(a)); err != nil {
				return err
			}
		}
		return h.LinkSetUp(l)
	})
	return s
}

func TestBridgedContainerIsOnTheLAN(t *testing.T) {
	h := requireHost(t)
	bridgeNamed(t, h, "br0", 1500)
	before, err := h.LinkByName("br0")
	must(t, err)
	lan := port(t, h, "br0", "lanport", "10.8.0.9/24", "fd08::9/64")
	ct := newSpace(t, true)
	c := samples()["bridged"]
	tidyUp(t, c)
	must(t, Attach(ctx, ct.pid, c))
	if _, err := lan.dial("10.8.0.5:9", 300*time.Millisecond); !errors.Is(err, unix.EHOSTUNREACH) && !os.IsTimeout(err) {
		t.Errorf("held: want nothing, got %v", err)
	}
	must(t, Join(ctx, c))
	for _, address := range []string{"10.8.0.6", "fd08::5"} {
		exchange(t, lan, ct, address)
	}
	if got := exchange(t, ct, lan, "fd08::9").String(); got != "fd08::5" {
		t.Errorf("saw %s", got)
	}
	ours, err := h.LinkByName(c.hostLink(0))
	must(t, err)
	if got := ours.Attrs().HardwareAddr; got[0] != highByte {
		t.Errorf("the bridge may take %s for its own", got)
	}
	after, err := h.LinkByName("br0")
	must(t, err)
	lanport, err := h.LinkByName("lanport")
	must(t, err)
	if got := after.Attrs().HardwareAddr.String(); got != lanport.Attrs().HardwareAddr.String() && got != before.Attrs().HardwareAddr.String() {
		t.Errorf("the bridge has the hardware address of the container's port: %s", got)
	}
}

func TestSilenceOnABridgeIsUndoneByJoin(t *testing.T) {
	h := requireHost(t)
	bridgeNamed(t, h, "br0", 1500)
	lan := port(t, h, "br0", "lanport", "10.8.0.9/24")
	ct := newSpace(t, true)
	c := samples()["bridged"]
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	l := ct.listen(t, "10.8.0.5:0")
	client, server := connect(t, lan, l)
	defer client.Close()
	defer server.Close()
	echo(t, client, server)
	must(t, Silence(ctx, c))
	must(t, Silence(ctx, c))
	_, err := client.Write([]byte("early"))
	must(t, err)
	must(t, server.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	got := make([]byte, 5)
	if _, err := server.Read(got); !os.IsTimeout(err) {
		t.Errorf("want silence, got %q, %v", got, err)
	}
	must(t, Join(ctx, c))
	must(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := server.Read(got); err != nil || string(got) != "early" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestMissingBridgeIsRefusedWithThoseThereAre(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1)
	c.Interfaces[0].Bridge = "br7"
	refused := func(words ...string) {
		t.Helper()
		err := Attach(ctx, ct.pid, c)
		if !errors.Is(err, ErrNoBridge) || !errors.Is(err, ErrConfig) {
			t.Fatalf("got %v", err)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in %v", w, err)
			}
		}
	}
	refused("no bridge br7", "make one", OwnBridge)
	bridgeNamed(t, h, "br0", 1500)
	bridgeNamed(t, h, "br1", 1500)
	refused("no bridge br7", "br0, br1")
	must(t, Leave(ctx, c, true)) // what is gone does not keep from leaving
	c.Interfaces[0].Bridge = "lo"
	if err := c.Validate(); !errors.Is(err, ErrConfig) {
		t.Errorf("got %v", err)
	}
}

func TestOwnBridgeLeadsOutAndIsForgottenWithItsLastPort(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h)
	one, two := newSpace(t, true), newSpace(t, true)
	a, b := samples()["own bridge"], samples()["own bridge"]
	b.UID = "0000000000020000"
	b.Interfaces = []Interface{bridged("eth0", 0, OwnBridge, "10.158.0.6/16", "fd9c:7c71:9e::6/64")}
	tidyUp(t, a)
	tidyUp(t, b)
	must(t, Apply(ctx, Target{PID: one.pid}, a))
	must(t, Apply(ctx, Target{PID: two.pid}, b))
	for _, test := range [][2]string{{"198.51.100.2", "198.51.100.1"}, {"2001:db8:1::2", "2001:db8:1::1"}} {
		if got := exchange(t, one, out, test[0]).String(); got != test[1] {
			t.Errorf("outside saw %s", got)
		}
	}
	if got := exchange(t, one, two, "10.158.0.6").String(); got != "10.158.0.5" {
		t.Errorf("the neighbour saw %s", got)
	}
	exchange(t, hostSpace(t), one, "10.158.0.5")
	has := func() bool {
		_, err := h.LinkByName(OwnBridge)
		return err == nil
	}
	must(t, Leave(ctx, a, false))
	must(t, Forget(ctx))
	if !has() {
		t.Error("the bridge went before its last port")
	}
	must(t, Leave(ctx, b, false))
	must(t, Forget(ctx))
	if has() {
		t.Error("the bridge is still there")
	}
}

func TestBridgeOfAnAdminWithThatNameIsLeftAlone(t *testing.T) {
	h := requireHost(t)
	bridgeNamed(t, h, OwnBridge, 1500)
	ct := newSpace(t, true)
	c := config(1)
	c.Interfaces = []Interface{bridged("eth0", 0, OwnBridge, "10.8.0.5/24")}
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	b, err := h.LinkByName(OwnBridge)
	must(t, err)
	addrs, err := h.AddrList(b, netlink.FAMILY_V4)
	must(t, err)
	if len(addrs) > 0 {
		t.Errorf("it was given %v", addrs)
	}
	must(t, Leave(ctx, c, false))
	must(t, Forget(ctx))
	if _, err := h.LinkByName(OwnBridge); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

func TestAnswersLeaveThroughTheInterfaceThatWasAsked(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h)
	routeBack(t, out)
	forward(t)
	bridgeNamed(t, h, "br0", 1500)
	lan := port(t, h, "br0", "lanport", "10.8.0.1/24", "fd08::1/64", "192.0.2.9/32", "2001:db8:9::9/128")
	ct := newSpace(t, true)
	c := samples()["several"]
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	exchange(t, out, ct, "10.9.0.5")
	exchange(t, lan, ct, "10.8.0.5")
	// A client behind the LAN's router: the answer must go back to that router.
	for from, to := range map[string]string{"192.0.2.9": "10.8.0.5", "2001:db8:9::9": "fd08::5"} {
		lan.within(t, func(h *netlink.Handle) error {
			l, err := h.LinkByName("lan0")
			if err != nil {
				return err
			}
			a := netip.MustParseAddr(to)
			return h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(host(a)), Src: netip.MustParseAddr(from).AsSlice()})
		})
		if got := exchange(t, lan, ct, to).String(); got != from {
			t.Errorf("saw %s", got)
		}
	}
}

func TestHostAnswersForARoutedAddressOfItsLAN(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h) // has no route to the container: it looks for a neighbour
	ct := newSpace(t, true)
	c := config(1, "198.51.100.77/32", "2001:db8:1::77/128")
	tidyUp(t, c)
	hidden := config(1, "198.51.100.77/32", "2001:db8:1::77/128")
	hidden.Interfaces[0].NAT = true
	must(t, Apply(ctx, Target{PID: ct.pid}, hidden))
	if all, err := kernelOf(t).proxies(); len(all) != 0 || err != nil {
		t.Errorf("hidden: %v, %v", all, err)
	}
	must(t, Apply(ctx, Target{PID: ct.pid, Before: &hidden}, c))
	exchange(t, out, ct, "198.51.100.77")
	exchange(t, out, ct, "2001:db8:1::77")
	report, err := Inspect(ctx, ct.pid, c)
	must(t, err)
	if diff := cmp.Diff([]string{"up0"}, report.Interfaces[0].Addresses[0].Proxies); diff != "" {
		t.Error(diff)
	}
	must(t, Leave(ctx, c, true))
	s := kernelOf(t)
	if all, err := s.proxies(); len(all) != 2 || err != nil {
		t.Errorf("suspended: %v, %v", all, err)
	}
	must(t, Leave(ctx, c, false))
	if all, err := s.proxies(); len(all) != 0 || err != nil {
		t.Errorf("left: %v, %v", all, err)
	}
}

func TestConnectionSurvivesAnotherHardwareAddressAndMTU(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	for _, address := range []string{"10.9.0.5", "[fd09::5]"} {
		client, server := connect(t, hostSpace(t), ct.listen(t, address+":0"))
		defer client.Close()
		defer server.Close()
		for _, change := range []func(*Interface){
			func(i *Interface) { i.MAC = "02:00:00:00:00:09" },
			func(i *Interface) { i.MTU = 1300 },
			func(i *Interface) { i.Name = "lan" },
			func(i *Interface) { i.NAT = true },
		} {
			next := c
			next.Interfaces = slices.Clone(c.Interfaces)
			change(&next.Interfaces[0])
			must(t, Apply(ctx, Target{PID: ct.pid, Before: &c}, next))
			echo(t, client, server)
			must(t, Apply(ctx, Target{PID: ct.pid, Before: &next}, c))
			echo(t, client, server)
		}
	}
}

func TestInspectNamesWhatDiffers(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "10.9.0.6/32")
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	l, err := h.LinkByName(c.hostLink(0))
	must(t, err)
	must(t, h.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(prefixes("10.9.0.5/32")[0]), Scope: netlink.SCOPE_LINK}))
	ct.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(
			h.AddrDel(eth, &netlink.Addr{IPNet: ipNet(prefixes("10.9.0.6/32")[0])}),
			h.LinkSetMTU(eth, 1400),
		)
	})
	report, err := Inspect(ctx, ct.pid, c)
	must(t, err)
	mac := macs(c, 0)
	want := []Difference{
		{Inside: true, Link: l.Attrs().Name, Kind: "link", Object: "the container's end", Wanted: "eth0 " + mac + " mtu 1500 up", Actual: "eth0 " + mac + " mtu 1400 up"},
		{Inside: true, Link: l.Attrs().Name, Kind: "address", Object: "10.9.0.6/32", Wanted: "present"},
		{Kind: "route", Object: "10.9.0.5/32", Wanted: "through " + l.Attrs().Name},
	}
	if diff := cmp.Diff(want, report.Differences); diff != "" {
		t.Error(diff)
	}
	states := []string{report.Interfaces[0].Addresses[0].State, report.Interfaces[0].Addresses[1].State}
	if diff := cmp.Diff([]string{AddressUnrouted, AddressMissing}, states); diff != "" {
		t.Error(diff)
	}
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	must(t, Leave(ctx, c, true))
	if report, err = Inspect(ctx, 0, c); err != nil || len(report.Differences) > 0 || report.Interfaces[0].Addresses[0].State != AddressSwallowed {
		t.Errorf("suspended: %+v, %v", report, err)
	}
}

func TestReapFindsEveryKindOfLeftover(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	bridgeNamed(t, h, "br0", 1500)
	clean := routesAndLinks(t, h)
	kept, one, two := newSpace(t, true), newSpace(t, true), newSpace(t, true)
	a, b, suspended := config(1, "10.9.0.5/32", "198.51.100.70/32"), samples()["several"], config(3, "198.51.100.71/32", "fd09::71/128")
	b.UID = "0000000000020000"
	b.Interfaces[0].Addresses = prefixes("10.9.0.6/32", "198.51.100.72/32")
	tidyUp(t, a)
	must(t, Apply(ctx, Target{PID: kept.pid}, a))
	must(t, Apply(ctx, Target{PID: one.pid}, b))
	must(t, Apply(ctx, Target{PID: two.pid}, suspended))
	must(t, Leave(ctx, suspended, true))
	removed, err := Reap(ctx, []Config{a})
	must(t, err)
	want := []string{
		"link ct000000000002", "link ct0000000000021", "link ct000000000002z",
		"proxy entry 198.51.100.71", "proxy entry 198.51.100.72", "route 198.51.100.71", "route fd09::71",
		"packet filter of 000000000002", "packet filter of 000000000003",
	}
	slices.Sort(want)
	slices.Sort(removed)
	if diff := cmp.Diff(want, removed); diff != "" {
		t.Error(diff)
	}
	if removed, err = Reap(ctx, []Config{a}); err != nil || len(removed) > 0 {
		t.Errorf("the second time: %q, %v", removed, err)
	}
	exchange(t, hostSpace(t), kept, "10.9.0.5")
	must(t, Leave(ctx, a, false))
	must(t, Forget(ctx))
	if diff := cmp.Diff(clean, routesAndLinks(t, h)); diff != "" {
		t.Error(diff)
	}
}

func TestAddressOfAnotherContainerIsRefusedOnABridgeToo(t *testing.T) {
	h := requireHost(t)
	bridgeNamed(t, h, "br0", 1500, "10.8.0.1/24")
	one, two := newSpace(t, true), newSpace(t, true)
	plug(t, one, config(1, "10.8.0.5/32"))
	for address, owner := range map[string]string{"10.8.0.5/24": "ct000000000001", "10.8.0.1/24": "br0"} {
		c := config(2)
		c.Interfaces = []Interface{bridged("eth0", 0, "br0", address)}
		err := Apply(ctx, Target{PID: two.pid}, c)
		if !errors.Is(err, ErrAddressInUse) || !strings.Contains(err.Error(), owner) {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

// BenchmarkApply is on a host with many other containers, as the difference
// between one and many is what counts.
func BenchmarkApply(b *testing.B) {
	for name, others := range map[string]int{"alone": 0, "among200": 200} {
		b.Run(name, func(b *testing.B) {
			h := requireHost(b)
			outside(b, h)
			b.Cleanup(func() { must(b, Forget(ctx)) })
			ct, parking := newSpace(b, true), newSpace(b, true)
			for n := range others {
				c := config(1000 + n)
				c.Interfaces[0].Addresses = []netip.Prefix{
					host(netip.AddrFrom4([4]byte{10, 20, byte(n), 1})), host(netip.AddrFrom4([4]byte{10, 20, byte(n), 2})),
					host(netip.MustParseAddr("fd20::1").Next()), // told apart below
				}
				six := netip.MustParseAddr("fd20::").As16()
				six[13], six[15] = byte(n), 1
				c.Interfaces[0].Addresses[2] = host(netip.AddrFrom16(six))
				c.Interfaces[0].Name = "eth" + c.UID[8:12]
				b.Cleanup(func() { must(b, Leave(context.Background(), c, false)) })
				must(b, Apply(ctx, Target{PID: parking.pid}, c))
			}
			c := config(1, "10.9.0.5/32", "10.9.0.6/32", "fd09::5/128")
			more := config(1, "10.9.0.5/32", "10.9.0.6/32", "fd09::5/128", "10.9.0.7/32")
			plug(b, ct, c)
			var took [3]time.Duration
			var cpu time.Duration
			rounds := 0
			for b.Loop() {
				rounds++
				start, used := time.Now(), cpuTime(b)
				must(b, Apply(ctx, Target{PID: ct.pid}, c))
				cpu += cpuTime(b) - used
				took[0] += time.Since(start)
				start = time.Now()
				must(b, Apply(ctx, Target{PID: ct.pid, Before: &c}, more))
				took[1] += time.Since(start)
				start = time.Now()
				must(b, Apply(ctx, Target{PID: ct.pid, Before: &more}, c))
				took[2] += time.Since(start)
			}
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(rounds), "idle-cpu-ms/op")
			for i, what := range []string{"idle", "add", "delete"} {
				b.ReportMetric(float64(took[i].Microseconds())/1000/float64(rounds), what+"-ms/op")
			}
		})
	}
}
