package netns

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is a space for the namespace of the test itself.
func hostSpace(t testing.TB) space {
	t.Helper()
	ns, err := os.Open("/proc/self/ns/net")
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	return space{os.Getpid(), ns}
}

// exchange connects from one space to a listener in another, sends a line
// there and back, and returns the address that the listener saw.
func exchange(t testing.TB, from, to space, address string) (peer netip.Addr) {
	t.Helper()
	l := to.listen(t, net.JoinHostPort(address, "0"))
	client, server := connect(t, from, l)
	echo(t, client, server)
	peer = server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	must(t, errors.Join(client.Close(), server.Close(), l.Close()))
	return peer
}

func connect(t testing.TB, from space, l *net.TCPListener) (client, server net.Conn) {
	t.Helper()
	client, err := from.dial(l.Addr().String(), 20*time.Second)
	must(t, err)
	must(t, l.SetDeadline(time.Now().Add(20*time.Second)))
	server, err = l.Accept()
	must(t, err)
	return client, server
}

// sentAgain is how many packets of a connection were sent more than once.
func sentAgain(t testing.TB, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(t, err)
	var info *unix.TCPInfo
	var failed error
	must(t, raw.Control(func(fd uintptr) {
		info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}))
	must(t, failed)
	return info.Total_retrans
}

func echo(t testing.TB, a, b net.Conn) {
	t.Helper()
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		_, err := pair[0].Write([]byte("hello"))
		must(t, err)
		must(t, pair[1].SetReadDeadline(time.Now().Add(10*time.Second)))
		got := make([]byte, 5)
		_, err = pair[1].Read(got)
		must(t, err)
		if string(got) != "hello" {
			t.Fatalf("got %q", got)
		}
	}
}

func TestHostAndContainerReachEachOther(t *testing.T) {
	requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	c := config(1, "10.9.0.5/16", "fd09::5/64")
	c.Interfaces[0].MTU = 1400
	plug(t, ct, c)
	for _, address := range []string{"10.9.0.5", "fd09::5"} {
		exchange(t, host, ct, address)
	}
	if got := exchange(t, ct, host, "169.254.1.1").String(); got != "10.9.0.5" {
		t.Errorf("host saw %s", got)
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	far := netip.MustParsePrefix("2001:db8:9::9/128")
	h, err := openRoute()
	must(t, err)
	defer h.Close()
	must(t, addAddress(h, lo, far))
	defer func() { must(t, h.AddrDel(lo, &netlink.Addr{IPNet: ipNet(far)})) }()
	if got := exchange(t, ct, host, far.Addr().String()).String(); got != "fd09::5" {
		t.Errorf("host saw %s", got)
	}
}

func permanentNeighbours(h *netlink.Handle, link netlink.Link) (map[string]string, error) {
	known := map[string]string{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := h.NeighList(link.Attrs().Index, family)
		if err != nil {
			return nil, err
		}
		for _, n := range list {
			if n.State == netlink.NUD_PERMANENT {
				known[n.IP.String()] = n.HardwareAddr.String()
			}
		}
	}
	return known, nil
}

func TestHostKnowsTheContainersHardwareAddress(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	plug(t, ct, c)
	link, err := h.LinkByName(c.hostLink(0))
	must(t, err)
	if got := link.Attrs().HardwareAddr.String(); got != macs(c, 1) {
		t.Errorf("the link has %s, not %s", got, macs(c, 1))
	}
	got, err := permanentNeighbours(h, link)
	must(t, err)
	want := map[string]string{"10.9.0.5": macs(c, 0), "fd09::5": macs(c, 0)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestContainersSideIsAsConfigured(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/16", "fd09::5/64")
	c.Interfaces[0].MTU = 1400
	plug(t, ct, c)
	type state struct {
		MAC       string
		MTU       int
		Addresses []string
		Routes    []string
		Tentative bool
		LoUp      bool
		Known     map[string]string
	}
	var got state
	ct.within(t, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		got.LoUp = lo.Attrs().Flags&net.FlagUp != 0
		got.MAC, got.MTU = eth.Attrs().HardwareAddr.String(), eth.Attrs().MTU
		addrs, err := h.AddrList(eth, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			got.Tentative = got.Tentative || a.Flags&unix.IFA_F_TENTATIVE != 0
			if !a.IP.IsLinkLocalUnicast() {
				got.Addresses = append(got.Addresses, a.IPNet.String())
			}
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := h.RouteList(eth, family)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Gw != nil {
					got.Routes = append(got.Routes, r.Dst.String()+" via "+r.Gw.String())
				}
			}
		}
		got.Known, err = permanentNeighbours(h, eth)
		return err
	})
	want := state{
		MAC: macs(c, 0), MTU: 1400, LoUp: true,
		Addresses: []string{"10.9.0.5/32", "fd09::5/128"},
		Routes:    []string{"0.0.0.0/0 via 169.254.1.1", "::/0 via fe80::1"},
		Known:     map[string]string{"169.254.1.1": macs(c, 1), "fe80::1": macs(c, 1)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, s := range [][]string{{"mptcp", "enabled"}, {"ipv6", "conf", "eth0", "accept_dad"}, {"ipv6", "conf", "eth0", "accept_ra"}} {
		if got := ct.sysctl(t, s...); got != "0" {
			t.Errorf("%v is %s", s, got)
		}
	}
	if b, err := os.ReadFile(sysctlPath("mptcp", "enabled")); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("the host's own setting was changed to %s, %v", b, err)
	}
}

func TestContainersReachEachOtherWithoutNAT(t *testing.T) {
	requireHost(t)
	one, two := newSpace(t, true), newSpace(t, true)
	a, b := config(1, "10.9.0.5/32", "fd09::5/128"), config(2, "10.9.0.6/32", "fd09::6/128")
	a.Interfaces[0].NAT, b.Interfaces[0].NAT = true, true
	plug(t, one, a)
	plug(t, two, b)
	if got := exchange(t, one, two, "10.9.0.6").String(); got != "10.9.0.5" {
		t.Errorf("saw %s", got)
	}
	if got := exchange(t, two, one, "fd09::5").String(); got != "fd09::6" {
		t.Errorf("saw %s", got)
	}
}

func TestOutsideSeesTheHostsAddressWithNAT(t *testing.T) {
	h := requireHost(t)
	out, ct, other := outside(t, h), newSpace(t, true), newSpace(t, true)
	attached := config(2, "fd09::6/128")
	must(t, Attach(ctx, other.pid, attached))
	defer func() { must(t, Leave(ctx, attached, false)) }()
	for _, s := range [][]string{{"ipv4", "ip_forward"}, {"ipv6", "conf", "all", "forwarding"}} {
		_, err := setSysctl(sysctlPath(s...), "0")
		must(t, err)
	}
	_, err := setSysctl(sysctlPath("ipv6", "conf", "up0", "accept_ra"), "1")
	must(t, err)
	_, err = setSysctl(sysctlPath("ipv6", "conf", "lo", "accept_ra"), "0")
	must(t, err)
	var facts bytes.Buffer
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	c.Log = slog.New(slog.NewTextHandler(&facts, nil))
	plug(t, ct, c)

	if got := exchange(t, ct, out, "198.51.100.2").String(); got != "198.51.100.1" {
		t.Errorf("outside saw %s", got)
	}
	if got := exchange(t, ct, out, "2001:db8:1::2").String(); got != "2001:db8:1::1" {
		t.Errorf("outside saw %s", got)
	}
	for _, want := range []string{"ipv4/ip_forward changed from 0 to 1", "conf/all/forwarding changed from 0 to 1", "conf/up0/accept_ra changed from 1 to 2"} {
		if !strings.Contains(facts.String(), want) {
			t.Errorf("not reported: %s in\n%s", want, &facts)
		}
	}
	for name, want := range map[string]string{c.hostLink(0): "0", attached.hostLink(0): "0", "lo": "0"} {
		b, err := os.ReadFile(sysctlPath("ipv6", "conf", name, "accept_ra"))
		must(t, err)
		if got := strings.TrimSpace(string(b)); got != want {
			t.Errorf("accept_ra of %s is %s, not %s", name, got, want)
		}
	}
}

func TestOutsideSeesTheContainersAddressWithoutNAT(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	routeBack(t, out)
	forward(t)
	plug(t, ct, config(1, "10.9.0.5/32", "fd09::5/128"))
	if got := exchange(t, ct, out, "198.51.100.2").String(); got != "10.9.0.5" {
		t.Errorf("outside saw %s", got)
	}
	if got := exchange(t, out, ct, "fd09::5").String(); got != "2001:db8:1::2" {
		t.Errorf("container saw %s", got)
	}
}

func TestConnectionSurvivesLeaveAndAttach(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	routeBack(t, out)
	forward(t)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	plug(t, ct, c)
	for _, address := range []string{"10.9.0.5", "fd09::5"} {
		t.Run(address, func(t *testing.T) {
			l := ct.listen(t, net.JoinHostPort(address, "0"))
			client, server := connect(t, out, l)
			defer client.Close()
			defer server.Close()
			echo(t, client, server)

			must(t, Leave(ctx, c, true))
			_, err := client.Write([]byte("early"))
			must(t, err)
			if _, err := out.dial(l.Addr().String(), 300*time.Millisecond); !os.IsTimeout(err) {
				t.Errorf("connecting to the suspended container: want silence, got %v", err)
			}
			must(t, client.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
			if _, err := client.Read(make([]byte, 1)); !os.IsTimeout(err) {
				t.Errorf("established connection: want silence, got %v", err)
			}

			must(t, Attach(ctx, ct.pid, c))
			must(t, Join(ctx, c))
			got := make([]byte, 5)
			must(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
			if _, err := server.Read(got); err != nil || string(got) != "early" {
				t.Fatalf("got %q, %v", got, err)
			}
			echo(t, client, server)
		})
	}
}

func TestNothingPassesBetweenAttachAndJoin(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	routeBack(t, out)
	forward(t)
	c := config(1, "10.9.0.5/32")
	must(t, Leave(ctx, c, true)) // as a suspended container leaves it
	defer func() { must(t, Leave(ctx, c, false)); must(t, Forget(ctx)) }()
	must(t, Attach(ctx, ct.pid, c))
	if _, err := out.dial("10.9.0.5:9", 300*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("want silence, got %v", err)
	}
	must(t, Join(ctx, c))
	if _, err := out.dial("10.9.0.5:9", 5*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("want the container's own refusal, got %v", err)
	}
}

func TestFirstPacketAfterJoinNeedsNoResolution(t *testing.T) {
	requireHost(t)
	for name, addresses := range map[string][]string{
		"both": {"10.9.0.5", "fd09::5"},
		"IPv4": {"10.9.0.5"},
	} {
		t.Run(name, func(t *testing.T) {
			host, ct := hostSpace(t), newSpace(t, true)
			c := config(1)
			for _, a := range addresses {
				c.Interfaces[0].Addresses = append(c.Interfaces[0].Addresses, netip.PrefixFrom(netip.MustParseAddr(a), 24))
			}
			plug(t, ct, c)
			for range 8 {
				must(t, Leave(ctx, c, true))
				must(t, Attach(ctx, ct.pid, c))
				var listeners []*net.TCPListener
				for _, a := range addresses {
					listeners = append(listeners, ct.listen(t, net.JoinHostPort(a, "0")))
				}
				must(t, Join(ctx, c))
				requireReady(t, c)
				for _, l := range listeners {
					client, server := connect(t, host, l)
					if n := sentAgain(t, client); n != 0 {
						t.Errorf("%s: %d packets of the handshake were lost", l.Addr(), n)
					}
					must(t, errors.Join(client.Close(), server.Close(), l.Close()))
				}
			}
		})
	}
}

// requireReady looks at once whether both ends pass packets.
func requireReady(t *testing.T, c Config) {
	t.Helper()
	k := kernelOf(t)
	l, found, err := k.linkNamed(c.hostLink(0))
	must(t, err)
	if ready, err := k.peerReady(l); !found || !ready || err != nil {
		t.Errorf("the container's end is not ready: %v", err)
	}
	if !c.Interfaces[0].has6() {
		return
	}
	if r, err := k.routeTo(gateway6, l.index); err != nil || r.typ != unix.RTN_LOCAL {
		t.Errorf("the host does not take in packets to its gateway address: %+v, %v", r, err)
	}
}

// kernelOf is a socket in the namespace of the test.
func kernelOf(t testing.TB) *socket {
	t.Helper()
	s, err := openSocket()
	must(t, err)
	t.Cleanup(func() { must(t, s.close()) })
	return s
}

func TestRejoiningAddsNothing(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	plug(t, ct, c)
	once := inventory(t, h) + ruleCount(t)
	must(t, Join(ctx, c))
	if twice := inventory(t, h) + ruleCount(t); twice != once {
		t.Errorf("after one Join:\n%s\nafter two:\n%s", once, twice)
	}
}

func ruleCount(t testing.TB) string {
	t.Helper()
	conn, err := openFilter(0)
	must(t, err)
	defer func() { must(t, conn.CloseLasting()) }()
	rules, err := conn.GetRules(natTable, natChain)
	must(t, err)
	entries, _, err := natEntries(conn)
	must(t, err)
	return fmt.Sprintf("\n%d rules\n%v", len(rules), entries)
}
