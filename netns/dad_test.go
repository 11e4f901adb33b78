package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// testBridge makes a bridge of the host under test.
func testBridge(t testing.TB, h *netlink.Handle, name string, addresses ...string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0xb, 0}
	must(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	bridge, err := h.LinkByName(name)
	must(t, err)
	t.Cleanup(func() { must(t, h.LinkDel(bridge)) })
	for _, a := range addresses {
		must(t, addAddress(h, bridge, netip.MustParsePrefix(a)))
	}
	must(t, h.LinkSetUp(bridge))
	return bridge
}

// onBridge is a host with eth0 at the bridge, ready to talk.
func onBridge(t testing.TB, h *netlink.Handle, bridge netlink.Link, port string, mac net.HardwareAddr, addresses ...string) space {
	t.Helper()
	s := newSpace(t, true)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
	must(t, h.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0", PeerHardwareAddr: mac, PeerNamespace: netlink.NsFd(int(s.ns.Fd())), PeerTxQLen: -1,
	}))
	link, err := h.LinkByName(port)
	must(t, err)
	t.Cleanup(func() { must(t, h.LinkDel(link)) })
	must(t, h.LinkSetUp(link))
	s.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if err := addAddress(h, eth, netip.MustParsePrefix(a)); err != nil {
				return err
			}
		}
		return h.LinkSetUp(eth)
	})
	waitUp(t, hostSpace(t), port)
	waitUp(t, s, "eth0")
	return s
}

// eventually looks until it is so, for as long as a busy machine may need.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if so() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func waitUp(t testing.TB, s space, name string) {
	t.Helper()
	eventually(t, name+" is up", func() (up bool) {
		s.within(t, func(h *netlink.Handle) error {
			link, err := h.LinkByName(name)
			if err == nil {
				up = link.Attrs().OperState == netlink.OperUp
			}
			return err
		})
		return up
	})
}

func bridgedConfig(bridge string, addresses ...string) Config {
	return Config{UID: "00000000000000c2", Interfaces: []Interface{{
		Name: "eth0", Bridge: bridge, Addresses: prefixes(addresses...),
	}}}
}

// probed repeats a probe that is to find somebody: on a busy machine an answer
// may come too late.
func probed(t testing.TB, c Config, address string) *TakenError {
	t.Helper()
	for range 10 {
		err := Probe(ctx, c, prefixes(address))
		var taken *TakenError
		if errors.As(err, &taken) {
			if !errors.Is(err, ErrAddressTaken) {
				t.Errorf("%v is no ErrAddressTaken", err)
			}
			return taken
		}
		must(t, err)
	}
	t.Fatalf("nobody was found at %s", address)
	return nil
}

func TestProbeFindsWhoHasTheAddressOnTheBridge(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0", "10.50.0.1/24")
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	onBridge(t, h, bridge, "port0", mac, "10.50.0.7/24", "10.60.0.7/24", "fd50::7/64")
	for name, address := range map[string]string{
		"where the host has an address":  "10.50.0.7/24",
		"where the host has no address":  "10.60.0.7/24",
		"of IPv6":                        "fd50::7/64",
		"with another length of network": "10.50.0.7/32",
	} {
		t.Run(name, func(t *testing.T) {
			got := probed(t, bridgedConfig("tbr0", address), address)
			want := &TakenError{Address: netip.MustParsePrefix(address).Addr(), MAC: mac, Link: "tbr0"}
			if diff := cmp.Diff(want, got, addressesCompare); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheSecondOfTwoContainersIsRefusedItsAddress(t *testing.T) {
	h := requireHost(t)
	testBridge(t, h, "tbr0")
	first := bridgedConfig("tbr0", "10.50.0.7/24", "fd50::7/64")
	plug(t, newSpace(t, true), first)
	second := first
	second.UID = "00000000000000c3"
	for _, address := range []string{"10.50.0.7/24", "fd50::7/64"} {
		if got := probed(t, second, address); got.MAC.String() != macs(first, 0) {
			t.Errorf("got %v, want %s", got, macs(first, 0))
		}
	}
	// The one that has it may have it.
	must(t, Probe(ctx, first, first.Interfaces[0].Addresses))
}

func TestProbeFindsTheHostsOwnAddressOnTheBridge(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0", "10.50.0.1/24")
	got := probed(t, bridgedConfig("tbr0", "10.50.0.1/24"), "10.50.0.1/24")
	if got.MAC.String() != bridge.Attrs().HardwareAddr.String() {
		t.Errorf("got %v", got)
	}
}

func TestProbeOfFreeAddressesFindsNobody(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0", "10.50.0.1/24")
	c := bridgedConfig("tbr0", "10.50.0.8/24", "fd50::8/64", "10.50.0.9/24")
	own, _ := MACFor(c.UID, 0)
	onBridge(t, h, bridge, "port0", net.HardwareAddr{2, 0, 0, 0, 0, 0x77}, "10.50.0.7/24", "fd50::7/64")
	// The container itself has one already.
	onBridge(t, h, bridge, "port1", own, "10.50.0.9/24")
	must(t, Probe(ctx, c, c.Interfaces[0].Addresses))
}

func TestProbeFindsWhoHasTheAddressInANetworkOfTheHost(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h)
	out.within(t, func(h *netlink.Handle) error {
		up1, err := h.LinkByName("up1")
		if err != nil {
			return err
		}
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := h.LinkSetUp(lo); err != nil {
			return err
		}
		for _, a := range []string{"198.51.100.66", "2001:db8:1::66"} {
			ip := netip.MustParseAddr(a)
			if err := h.NeighAdd(&netlink.Neigh{LinkIndex: up1.Attrs().Index, Family: int(familyOf(ip)), Flags: netlink.NTF_PROXY, IP: ip.AsSlice()}); err != nil {
				return err
			}
			// An address is answered for only if it is somewhere else.
			if err := h.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(netip.PrefixFrom(ip, ip.BitLen()))}); err != nil {
				return err
			}
		}
		for _, s := range [][]string{{"ipv4", "conf", "all", "forwarding"}, {"ipv6", "conf", "all", "forwarding"}, {"ipv6", "conf", "all", "proxy_ndp"}, {"ipv6", "conf", "up1", "proxy_ndp"}} {
			if _, err := setSysctl(sysctlPath(s...), "1"); err != nil {
				return err
			}
		}
		return nil
	})
	waitUp(t, hostSpace(t), "up0")
	waitUp(t, out, "up1")
	var mac string
	out.within(t, func(h *netlink.Handle) error {
		up1, err := h.LinkByName("up1")
		if err == nil {
			mac = up1.Attrs().HardwareAddr.String()
		}
		return err
	})
	for name, address := range map[string]string{
		"its own, IPv4": "198.51.100.2/32", "its own, IPv6": "2001:db8:1::2/128",
		"answered for in place of another, IPv4": "198.51.100.66/32",
		"answered for in place of another, IPv6": "2001:db8:1::66/128",
	} {
		t.Run(name, func(t *testing.T) {
			c := innerConfig()
			c.Interfaces[0].Addresses = prefixes(address)
			if got := probed(t, c, address); got.Link != "up0" || got.MAC.String() != mac {
				t.Errorf("got %v, want %s", got, mac)
			}
		})
	}
}

func TestProbeAsksOnlyWhereTheAddressWouldLive(t *testing.T) {
	h := requireHost(t)
	outside(t, h)
	ct := newSpace(t, true)
	plug(t, ct, config(1, "10.9.0.5/32"))
	down := testBridge(t, h, "tbr0", "10.70.0.1/24")
	must(t, h.LinkSetDown(down))
	testBridge(t, h, "tbr1")
	s, err := openSocket()
	must(t, err)
	t.Cleanup(func() { must(t, s.close()) })
	for name, test := range map[string]struct {
		bridge, address string
		want            []string
	}{
		"in a network of the host":        {"", "198.51.100.7/32", []string{"up0"}},
		"of IPv6 in one":                  {"", "2001:db8:1::7/128", []string{"up0"}},
		"in no network of the host":       {"", "10.9.0.77/32", nil},
		"in one of a link that is down":   {"", "10.70.0.7/32", nil},
		"on a bridge that is down":        {"tbr0", "10.70.0.7/24", nil},
		"on a bridge without addresses":   {"tbr1", "10.70.1.7/24", []string{"tbr1"}},
		"in the network of the gateways":  {"", "169.254.1.7/32", nil},
		"on our bridge that is yet to be": {OwnBridge, "10.70.0.7/24", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := bridgedConfig(test.bridge, test.address)
			segments, err := segmentsOf(s, c, c.Interfaces[0].Addresses)
			must(t, err)
			var got []string
			for _, s := range segments {
				got = append(got, s.name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestProbeRefusesWhatItCannotAsk(t *testing.T) {
	requireHost(t)
	c := bridgedConfig("tbr9", "10.50.0.7/24")
	if err := Probe(ctx, c, prefixes("10.50.0.7/24")); !errors.Is(err, ErrNoBridge) {
		t.Errorf("missing bridge: got %v", err)
	}
	if err := Probe(ctx, c, prefixes("10.50.0.8/24")); !errors.Is(err, ErrConfig) {
		t.Errorf("address of nobody: got %v", err)
	}
	must(t, Probe(ctx, c, nil))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := Probe(ended, c, prefixes("10.50.0.7/24")); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: got %v", err)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	h := requireHost(t)
	testBridge(t, h, "tbr0")
	limit, cancel := context.WithTimeout(ctx, probeTime/4)
	defer cancel()
	if err := Probe(limit, bridgedConfig("tbr0", "10.50.0.7/24"), prefixes("10.50.0.7/24")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestFramesAreRead(t *testing.T) {
	mac, from := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 9}
	v4, other := netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8")
	v6 := netip.MustParseAddr("fd00::7")
	answer := arpFrame(mac, v4, other)
	answer[7] = 2
	unanswered := arpFrame(mac, anyIPv4, v4)
	unanswered[7] = 2
	forwarded := solicitation(v6)
	forwarded[7] = 254
	asks := ndFrame(netip.MustParseAddr("fe80::9"), solicitedNode(v6), ndSolicit, 0, v6, nil)
	for name, test := range map[string]struct {
		frame []byte
		ipv6  bool
		want  heard
	}{
		"ARP probe of another":          {arpFrame(mac, anyIPv4, v4), false, heard{v4, mac}},
		"ARP announcement":              {arpFrame(mac, v4, v4), false, heard{v4, mac}},
		"ARP request":                   {arpFrame(mac, v4, other), false, heard{v4, mac}},
		"ARP answer":                    {answer, false, heard{v4, mac}},
		"ARP answer from nobody":        {unanswered, false, heard{}},
		"short ARP":                     {answer[:27], false, heard{}},
		"empty":                         {nil, false, heard{}},
		"ND probe of another":           {solicitation(v6), true, heard{v6, from}},
		"advertisement":                 {advertisement(v6, v6, mac, false), true, heard{v6, mac}},
		"advertisement without address": {ndFrame(v6, allNodes, ndAdvertise, 0, v6, nil), true, heard{v6, from}},
		"question":                      {asks, true, heard{}},
		"through a router":              {forwarded, true, heard{}},
		"short ND":                      {solicitation(v6)[:60], true, heard{}},
		"empty ND":                      {nil, true, heard{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := readARP(test.frame)
			if test.ipv6 {
				got, ok = readND(test.frame, from)
			}
			if !ok {
				got = heard{}
			}
			if got.address != test.want.address || got.mac.String() != test.want.mac.String() {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestChecksumIsTheOneOfTheRFC(t *testing.T) {
	// A correct message with its checksum sums up to zero.
	b := advertisement(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fd00::7"), net.HardwareAddr{2, 0, 0, 0, 0, 1}, true)
	if got := checksumIPv6(b[8:sizeofIPv6], b[sizeofIPv6:]); got != 0 {
		t.Errorf("got %#x", got)
	}
	if b[sizeofIPv6+4] != naOverride|naRouter {
		t.Errorf("flags are %#x", b[sizeofIPv6+4])
	}
}

func TestAFloodOfFramesKeepsNoProbeFromEnding(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0")
	s := onBridge(t, h, bridge, "port0", net.HardwareAddr{2, 0, 0, 0, 0, 0x77})
	in, err := openPackets(bridge.Attrs().Index, unix.ETH_P_ARP)
	must(t, err)
	t.Cleanup(func() { must(t, in.close()) })
	s.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		out, err := openPackets(eth.Attrs().Index, unix.ETH_P_ARP)
		if err != nil {
			return err
		}
		for range 2 * hearAtOnce {
			err = errors.Join(err, out.send(broadcastMAC, arpFrame(eth.Attrs().HardwareAddr, anyIPv4, netip.MustParseAddr("10.0.0.1"))))
		}
		return errors.Join(err, out.close())
	})
	came := uint32(0)
	eventually(t, "the frames are there", func() bool {
		stats, err := unix.GetsockoptTpacketStats(in.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		must(t, err)
		came += stats.Packets // since it was asked last
		return came >= 2*hearAtOnce
	})
	p := prober{}
	must(t, p.hear(line{packets: in, asked: map[netip.Addr]question{}}))
	if _, _, left, err := in.receive(make([]byte, 64)); err != nil || !left {
		t.Errorf("it read all %d frames at once: %v", 2*hearAtOnce, err)
	}
}
