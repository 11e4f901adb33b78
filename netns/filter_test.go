package netns

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// plugged is plug, and returns the host's link of the first interface.
func plugged(t testing.TB, h *netlink.Handle, s space, c Config) netlink.Link {
	t.Helper()
	plug(t, s, c)
	link, err := h.LinkByName(c.hostLink(c.Interfaces[0].Index))
	must(t, err)
	return link
}

// bridgeTo makes the bridge br0 with a port that leads outside.
func bridgeTo(t testing.TB, h *netlink.Handle, out space) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	must(t, h.LinkAdd(bridge))
	t.Cleanup(func() { must(t, h.LinkDel(bridge)) })
	must(t, h.LinkSetUp(bridge))
	// Where it is built in, bridged packets would pass the filters of routed ones.
	for _, name := range []string{"iptables", "ip6tables", "arptables"} {
		if _, err := setSysctl(sysctlPath("bridge", "bridge-nf-call-"+name), "0"); !errors.Is(err, os.ErrNotExist) {
			must(t, err)
		}
	}
	attrs.Name = "port0"
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "out0", PeerNamespace: netlink.NsFd(int(out.ns.Fd())), PeerTxQLen: -1}))
	port, err := h.LinkByName("port0")
	must(t, err)
	t.Cleanup(func() { must(t, h.LinkDel(port)) })
	must(t, h.LinkSetMaster(port, bridge))
	must(t, h.LinkSetUp(port))
	out.within(t, func(h *netlink.Handle) error {
		peer, err := h.LinkByName("out0")
		if err != nil {
			return err
		}
		return h.LinkSetUp(peer)
	})
	must(t, await(func() (bool, error) {
		l, err := h.LinkByName("port0")
		return err == nil && l.Attrs().OperState == netlink.OperUp, err
	}))
}

const (
	own4, other4       = "10.9.0.5", "10.9.0.99"
	own6, other6       = "fd09::5", "fd09::99"
	nobody6, everyone6 = "::", "ff02::1"
	frag, hops         = 44, 0 // extension headers of IPv6
)

// frames makes what a container at own4 and own6 may and may not send on a
// bridge. The marks of its UDP packets and everything else behind the Ethernet
// header are unique.
type frames net.HardwareAddr

func (f frames) v4(src, mark string) []byte {
	return rawEther(everyone, net.HardwareAddr(f), 0x800, rawIP4(src, "10.9.0.255", 17, rawUDP(mark)))
}

func (f frames) v6(src, mark string) []byte { return f.next(src, 17, rawUDP(mark)) }

func (f frames) icmp(src string, body ...[]byte) []byte { return f.next(src, 58, body...) }

// ext has an extension header.
func (f frames) ext(next byte, body ...[]byte) []byte { return f.next(own6, next, body...) }

func (f frames) next(src string, next byte, body ...[]byte) []byte {
	return rawEther(everyNode, net.HardwareAddr(f), 0x86dd, rawIP6(src, everyone6, next, body...))
}

func (f frames) arp(body []byte) []byte { return rawEther(everyone, net.HardwareAddr(f), 0x806, body) }

func (f frames) honest() map[string][]byte {
	mac, zero := net.HardwareAddr(f), make(net.HardwareAddr, 6)
	ll := linkLocal(mac).String()
	return map[string][]byte{
		"IPv4":                 f.v4(own4, "honest four"),
		"IPv6":                 f.v6(own6, "honest six"),
		"IPv6 link-local":      f.v6(ll, "honest link-local"),
		"ARP request":          f.arp(rawARP(1, mac, own4, zero, "10.9.0.1")),
		"ARP reply":            rawEther(strangeMAC, mac, 0x806, rawARP(2, mac, own4, strangeMAC, "10.9.0.1")),
		"gratuitous ARP":       f.arp(rawARP(1, mac, own4, zero, own4)),
		"ARP probe":            f.arp(rawARP(1, mac, "0.0.0.0", zero, own4)),
		"NS":                   f.icmp(own6, rawND(135, ipBytes(other6))),
		"NS with source":       f.icmp(own6, rawND(135, ipBytes(other6), rawOption(1, mac))),
		"DAD":                  f.icmp(nobody6, rawND(135, ipBytes(own6))),
		"DAD with nonce":       f.icmp(nobody6, rawND(135, ipBytes(own6), rawOption(14, strangeMAC))),
		"NA":                   f.icmp(own6, rawND(136, ipBytes(own6))),
		"NA with target":       f.icmp(own6, rawND(136, ipBytes(own6), rawOption(2, mac))),
		"NA of link-local":     f.icmp(ll, rawND(136, ipBytes(ll), rawOption(2, mac))),
		"RS":                   f.icmp(ll, rawND(133)),
		"RS with source":       f.icmp(ll, rawND(133, rawOption(1, mac))),
		"echo":                 f.icmp(own6, rawND(128, []byte("honest echo"))),
		"echo in fragments":    f.ext(frag, []byte{58, 0, 0, 1, 0, 0, 0, 7}, rawND(128, []byte("honest fragment."))),
		"rest of a fragment":   f.ext(frag, []byte{58, 0, 0, 24, 0, 0, 0, 7}, []byte("honest rest")),
		"MLD":                  f.ext(hops, []byte{58, 0, 5, 2, 0, 0, 1, 0}, rawND(143, []byte("honest report"))),
		"MLD before addresses": rawEther(everyNode, mac, 0x86dd, rawIP6(nobody6, "ff02::16", hops, []byte{58, 0, 5, 2, 0, 0, 1, 0}, rawND(143, []byte("first report")))),
	}
}

func (f frames) forged() map[string][]byte {
	mac, zero := net.HardwareAddr(f), make(net.HardwareAddr, 6)
	ll := linkLocal(mac).String()
	padding := []byte{58, 0, 1, 4, 0, 0, 0, 0} // options before ICMPv6
	return map[string][]byte{
		"IPv4 source":                f.v4(other4, "forged four"),
		"IPv4 source of the router":  f.v4("10.9.0.1", "forged router"),
		"no IPv4 source":             f.v4("0.0.0.0", "forged nobody"),
		"IPv6 source":                f.v6(other6, "forged six"),
		"IPv6 link-local source":     f.v6("fe80::99", "forged link-local"),
		"no IPv6 source":             f.v6(nobody6, "forged nobody six"),
		"hardware address":           rawEther(everyone, strangeMAC, 0x800, rawIP4(own4, "10.9.0.255", 17, rawUDP("forged hardware"))),
		"hardware address, IPv6":     rawEther(everyNode, strangeMAC, 0x86dd, rawIP6(own6, everyone6, 17, rawUDP("forged hardware six"))),
		"hardware address, ARP":      rawEther(everyone, strangeMAC, 0x806, rawARP(1, mac, own4, zero, "10.9.0.2")),
		"ARP reply":                  f.arp(rawARP(2, mac, other4, strangeMAC, "10.9.0.1")),
		"ARP reply, other hardware":  f.arp(rawARP(2, strangeMAC, own4, mac, "10.9.0.1")),
		"gratuitous ARP":             f.arp(rawARP(1, mac, "10.9.0.1", zero, "10.9.0.1")),
		"ARP probe":                  f.arp(rawARP(1, mac, "0.0.0.0", zero, other4)),
		"ARP of another kind":        f.arp(append([]byte{0, 6, 8, 0, 6, 4, 0, 2}, rawARP(2, mac, own4, mac, own4)[8:]...)),
		"half an ARP":                f.arp(rawARP(9, mac, own4, mac, own4)[:16]),
		"NA":                         f.icmp(own6, rawND(136, ipBytes(other6), rawOption(2, mac))),
		"NA without option":          f.icmp(own6, rawND(136, ipBytes(other6))),
		"NA from another":            f.icmp(other6, rawND(136, ipBytes(own6), rawOption(2, mac))),
		"NA of another hardware":     f.icmp(own6, rawND(136, ipBytes(own6), rawOption(2, strangeMAC))),
		"NA with two options":        f.icmp(own6, rawND(136, ipBytes(own6), rawOption(2, mac), rawOption(2, strangeMAC))),
		"NA with a wrong option":     f.icmp(own6, rawND(136, ipBytes(own6), rawOption(1, strangeMAC))),
		"NA behind an option":        f.ext(60, padding, rawND(136, ipBytes(other6), rawOption(2, mac))),
		"NA behind hop-by-hop":       f.ext(hops, padding, rawND(136, ipBytes(other6), rawOption(2, mac))),
		"NA in a fragment":           f.ext(frag, []byte{58, 0, 0, 1, 0, 0, 0, 8}, rawND(136, ipBytes(other6), rawOption(2, mac))),
		"options split from a NA":    f.ext(frag, []byte{60, 0, 0, 1, 0, 0, 0, 9}, padding),
		"NA split from options":      f.ext(frag, []byte{60, 0, 0, 8, 0, 0, 0, 9}, rawND(136, ipBytes(other6), rawOption(2, mac))),
		"NS from another":            f.icmp(other6, rawND(135, ipBytes("fd09::1"), rawOption(1, mac))),
		"NS of another hardware":     f.icmp(own6, rawND(135, ipBytes("fd09::1"), rawOption(1, strangeMAC))),
		"DAD for another":            f.icmp(nobody6, rawND(135, ipBytes(other6))),
		"RS of another hardware":     f.icmp(ll, rawND(133, rawOption(1, strangeMAC))),
		"router advertisement":       f.icmp(ll, rawND(134, make([]byte, 8), rawOption(1, mac))),
		"advertisement behind hops":  f.ext(hops, padding, rawND(134, make([]byte, 8), rawOption(1, mac))),
		"redirect":                   f.icmp(ll, rawND(137, ipBytes(other6), ipBytes(own6))),
		"router renumbering":         f.icmp(own6, rawND(138, []byte("forged renumbering"))),
		"inverse discovery":          f.icmp(own6, rawND(142, []byte("forged inverse"))),
		"a VLAN tag":                 rawEther(everyone, mac, 0x8100, []byte{0, 5, 8, 0}, rawIP4(own4, "10.9.0.255", 17, rawUDP("forged tag"))),
		"two VLAN tags":              rawEther(everyone, mac, 0x88a8, []byte{0, 5, 0x81, 0, 0, 6, 8, 0}, rawIP4(own4, "10.9.0.255", 17, rawUDP("forged tags"))),
		"a length instead of a type": rawEther(everyone, mac, 40, []byte("\xaa\xaa\x03\x00\x00\x00\x08\x00 forged length")),
		"another protocol":           rawEther(everyone, mac, 0x88cc, []byte("forged protocol")),
	}
}

// shown is what of a frame shows up behind the bridge, tags taken off.
func shown(frame []byte) []byte {
	for _, mark := range []string{"forged tag", "forged length", "forged protocol"} {
		if i := strings.Index(string(frame), mark); i >= 0 {
			return frame[i:]
		}
	}
	return frame[14:]
}

func TestNothingForgedLeavesABridgedLink(t *testing.T) {
	h := requireHost(t)
	for name, noFilter := range map[string]bool{"pinned": false, "not filtered": true} {
		t.Run(name, func(t *testing.T) {
			out, ct := newSpace(t, false), newSpace(t, true)
			bridgeTo(t, h, out)
			c := config(1, "10.9.0.5/24", "fd09::5/64")
			c.Interfaces[0].Bridge, c.Interfaces[0].NoFilter = "br0", noFilter
			plug(t, ct, c)
			inside, listener := ct.capture(t, "eth0"), out.capture(t, "out0")
			mac, _ := MACFor(c.UID, 0)
			honest, forged := frames(mac).honest(), frames(mac).forged()
			for _, all := range []map[string][]byte{honest, forged} {
				for _, f := range all {
					inside.send(t, f)
				}
			}
			mark := "that is all"
			inside.send(t, rawEther(everyone, mac, 0x800, rawIP4("10.9.0.5", "10.9.0.255", 17, rawUDP(mark))))
			listener.until(t, []byte(mark))
			for name, f := range honest {
				if !listener.saw(shown(f)) {
					t.Errorf("honest %s did not pass", name)
				}
			}
			for name, f := range forged {
				if listener.saw(shown(f)) != noFilter {
					t.Errorf("forged %s: passed: %v", name, !noFilter)
				}
			}
		})
	}
}

func TestNothingForgedIsRouted(t *testing.T) {
	h := requireHost(t)
	for name, noFilter := range map[string]bool{"pinned": false, "not filtered": true} {
		t.Run(name, func(t *testing.T) {
			out, ct := outside(t, h), newSpace(t, true)
			forward(t)
			c := config(1, "10.9.0.5/32", "fd09::5/128")
			c.Interfaces[0].NoFilter = noFilter
			plug(t, ct, c)
			mac, hostMAC := MACFor(c.UID, 0)
			v4 := func(src net.HardwareAddr, from, mark string) []byte {
				return rawEther(hostMAC, src, 0x800, rawIP4(from, "198.51.100.2", 17, rawUDP(mark)))
			}
			v6 := func(src net.HardwareAddr, from, mark string) []byte {
				return rawEther(hostMAC, src, 0x86dd, rawIP6(from, "2001:db8:1::2", 17, rawUDP(mark)))
			}
			inside, listener := ct.capture(t, "eth0"), out.capture(t, "up1")
			for _, frame := range [][]byte{
				v4(mac, "203.0.113.9", "forged four"), // the kernel's rp_filter drops it too
				v4(strangeMAC, own4, "forged hardware"),
				v6(mac, "2001:db8:9::9", "forged six"),
				v6(mac, "fd09::6", "forged neighbour"),
				v6(strangeMAC, own6, "forged hardware six"),
				v6(mac, own6, "honest six"),
				v4(mac, own4, "honest four"),
			} {
				inside.send(t, frame)
			}
			listener.until(t, []byte("honest four"))
			if !listener.saw([]byte("honest six")) { // the neighbour was asked for later
				listener.until(t, []byte("honest six"))
			}
			for mark, want := range map[string]bool{
				"honest six": true, "forged four": false, "forged hardware": noFilter, "forged six": noFilter,
				"forged neighbour": noFilter, "forged hardware six": noFilter,
			} {
				if got := listener.saw([]byte(mark)); got != want {
					t.Errorf("%s: passed: %v", mark, got)
				}
			}
		})
	}
}
