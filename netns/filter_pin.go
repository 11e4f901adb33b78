package netns

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// guardTable holds one chain for each host link of a container, hooked into what
// comes in there (netdev family), which is before bridges, address resolution and
// connection tracking, and sees every protocol. The cost of a packet and of a
// change does not depend on how many containers there are. Each container has one
// pair of sets with the addresses that its links may send from, so that adding an
// address touches neither rules nor counters:
//
//	table netdev ctctl {
//		set ct0123456789ab.4 { type ifname . ipv4_addr; elements = { "ct0123456789ab" . 10.9.0.5 } }
//		set ct0123456789ab.6 { type ifname . ipv6_addr; … }
//		chain ct0123456789ab.in { type filter hook ingress device "ct0123456789ab" … }
//		chain ct0123456789ab.out { type filter hook egress device "ct0123456789ab" … }  # isolated only
//	}
//
// Before Linux 6.16 a chain ends with its device; later ones stay, and take hold
// of the next device of that name.
var guardTable = &nftables.Table{Name: "ctctl", Family: nftables.TableFamilyNetdev}

// The reasons for which packets of a container are dropped, see [Drop].
const (
	// ReasonIsolated counts what an isolated container sends.
	ReasonIsolated = "isolated"
	// ReasonIsolatedIn counts what is sent to an isolated container.
	ReasonIsolatedIn = "isolated-in"
	// ReasonMAC is a hardware source address that is not the container's.
	ReasonMAC = "mac"
	// ReasonIPv4 is an IPv4 source address that is not the container's.
	ReasonIPv4 = "ipv4"
	// ReasonARP is a sender in ARP that is not the container, or malformed ARP.
	ReasonARP = "arp"
	// ReasonProtocol is anything but IPv4, ARP and IPv6: VLAN tags, spanning
	// tree, and so on.
	ReasonProtocol = "protocol"
	// ReasonRA is a router advertisement.
	ReasonRA = "router-advertisement"
	// ReasonND is any other neighbour discovery that claims what is not the
	// container's, redirects and malformed ones included.
	ReasonND = "nd"
	// ReasonIPv6 is an IPv6 source address that is not the container's, or an
	// IPv6 packet whose upper layer cannot be told.
	ReasonIPv6 = "ipv6"
)

const (
	etherSource = 6  // offsets in the Ethernet header
	etherType   = 12 // of a tagged frame this is the tag, as nft sees it
	arpSender   = 8  // hardware address in ARP for Ethernet and IPv4, RFC 826
	arpSenderIP = 14
	arpTargetIP = 24
	ip4Source   = 12
	ip4Dest     = 16
	ip6Length   = 4
	ip6Next     = 6
	ip6Source   = 8
	ip6Dest     = 24
	ip6Fragment = 42 // of the offset in a fragment header that comes first
	ndTarget    = 8  // of NS and NA behind the ICMPv6 header, RFC 4861, section 4

	icmpRS, icmpRA, icmpNS, icmpNA = 133, 134, 135, 136
	// Redirect, router renumbering (RFC 2894); inverse discovery (RFC 3122).
	icmpRedirect, icmpRenumber, icmpInverseNS, icmpInverseNA = 137, 138, 141, 142
	icmpMLDv2                                                = 143
	optSource, optTarget, optNonce                           = 1, 2, 14 // nonce: RFC 7527
)

var (
	isIPv4 = matchLink(etherType, 0x08, 0x00)
	isARP  = matchLink(etherType, 0x08, 0x06)
	isICMP = matchMeta(expr.MetaKeyL4PROTO, expr.CmpOpEq, unix.IPPROTO_ICMPV6)
	noICMP = matchMeta(expr.MetaKeyL4PROTO, expr.CmpOpNeq, unix.IPPROTO_ICMPV6)
	// ICMPv6 right behind the IPv6 header. Neighbour discovery is accepted in no
	// other form: with extension headers or in fragments it only serves to get
	// past filters (RFC 6980, RFC 7113).
	isPlainICMP = matchNetwork(ip6Next, unix.IPPROTO_ICMPV6)
	// A fragment header right behind the IPv6 header, and an offset that is not 0.
	isLaterFragment = append(
		matchNetwork(ip6Next, unix.IPPROTO_FRAGMENT),
		loadField(expr.PayloadBaseNetworkHeader, ip6Fragment, 2, 0),
		&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
		compare(expr.CmpOpNeq, 0, 0),
	)
	// Who asks whether an address is free has none yet.
	fromNobody = matchNetwork(ip6Source, make([]byte, 16)...)
)

// guard is what one host link lets through.
type guard struct {
	link     string
	set4     string // names of the sets of addresses
	set6     string
	mac      net.HardwareAddr
	open     bool // the container may send whatever it likes
	isolated bool
}

func (g guard) in() *nftables.Chain  { return guardChain(g.link, ".in", nftables.ChainHookIngress) }
func (g guard) out() *nftables.Chain { return guardChain(g.link, ".out", nftables.ChainHookEgress) }

func guardChain(link, suffix string, hook *nftables.ChainHook) *nftables.Chain {
	return &nftables.Chain{
		Name: link + suffix, Table: guardTable, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Device: link,
	}
}

// queueGuardProbe queues the chains that a host link has, on lo.
func queueGuardProbe(conn *nftables.Conn) {
	conn.AddTable(guardTable)
	conn.AddChain(guard{link: "lo"}.in())
	conn.AddChain(guard{link: "lo"}.out())
}

// outRules are for what goes to the container.
func (g guard) outRules() []filterRule {
	if !g.isolated {
		return nil
	}
	return []filterRule{dropRule(ReasonIsolatedIn)}
}

// inRules are for what comes from the container: what is known to be honest is
// accepted, everything else is dropped and counted.
//
// The unspecified IPv4 source 0.0.0.0 is honest only in ARP probes for an address
// of one's own (RFC 5227). DHCP is not possible from behind this filter: an
// address that the container was not given could not be used anyway.
func (g guard) inRules() []filterRule {
	if g.isolated {
		return []filterRule{dropRule(ReasonIsolated)}
	}
	if g.open {
		return nil
	}
	notMAC := []expr.Any{loadField(expr.PayloadBaseLLHeader, etherSource, 6, 0), compare(expr.CmpOpNeq, g.mac...)}
	notIPv6 := []expr.Any{loadField(expr.PayloadBaseLLHeader, etherType, 2, 0), compare(expr.CmpOpNeq, 0x86, 0xdd)}
	rules := []filterRule{
		dropRule(ReasonMAC, notMAC),
		acceptRule("ipv4", isIPv4, g.own4(ip4Source)),
		dropRule(ReasonIPv4, isIPv4),
	}
	rules = append(rules, g.arpRules()...)
	own := g.own6(expr.PayloadBaseNetworkHeader, ip6Source)
	rules = append(rules, dropRule(ReasonProtocol, notIPv6), acceptRule("ipv6", noICMP, own))
	rules = append(rules, g.discoveryRules()...)
	return append(
		rules,
		// A first fragment without the type would let a later one bring it.
		acceptRule("icmpv6", isICMP, []expr.Any{loadField(expr.PayloadBaseTransportHeader, 0, 1, 0)}, own),
		acceptRule("fragment", isICMP, isLaterFragment, own),
		// Multicast listener reports precede the first address (RFC 3590).
		acceptRule("mld", isICMP, matchTransport(0, icmpMLDv2), fromNobody),
		dropRule(ReasonIPv6),
	)
}

func (g guard) arpRules() []filterRule {
	// Ethernet, IPv4, and the lengths of their addresses.
	header := matchNetwork(0, 0, 1, 8, 0, 6, 4)
	sender := matchNetwork(arpSender, g.mac...)
	return []filterRule{
		acceptRule("arp", isARP, header, sender, g.own4(arpSenderIP)),
		acceptRule("arp probe", isARP, header, sender, matchNetwork(arpSenderIP, 0, 0, 0, 0), g.own4(arpTargetIP)),
		dropRule(ReasonARP, isARP),
	}
}

// discoveryRules take neighbour discovery with no option or exactly one, the one
// that belongs there, and tell the length of the whole packet, so that no second
// option can follow. That is what kernels send.
func (g guard) discoveryRules() []filterRule {
	source := g.own6(expr.PayloadBaseNetworkHeader, ip6Source)
	target := g.own6(expr.PayloadBaseTransportHeader, ndTarget)
	option := func(offset int, kind byte) []expr.Any {
		return matchTransport(offset, append([]byte{kind, 1}, g.mac...)...)
	}
	kind := func(t byte, length byte) []expr.Any {
		return append(append(isPlainICMP[:2:2], matchTransport(0, t)...), matchNetwork(ip6Length, 0, length)...)
	}
	span := func(from, to byte) []expr.Any {
		return []expr.Any{
			loadField(expr.PayloadBaseTransportHeader, 0, 1, 0),
			&expr.Range{Op: expr.CmpOpEq, Register: register(0), FromData: []byte{from}, ToData: []byte{to}},
		}
	}
	return []filterRule{
		acceptRule("ns", kind(icmpNS, 24), source),
		acceptRule("ns with source", kind(icmpNS, 32), source, option(24, optSource)),
		acceptRule("dad", kind(icmpNS, 24), fromNobody, target),
		acceptRule("dad with nonce", kind(icmpNS, 32), fromNobody, target, matchTransport(24, optNonce, 1)),
		acceptRule("na", kind(icmpNA, 24), source, target),
		acceptRule("na with target", kind(icmpNA, 32), source, target, option(24, optTarget)),
		acceptRule("rs", kind(icmpRS, 8), source),
		acceptRule("rs with source", kind(icmpRS, 16), source, option(8, optSource)),
		dropRule(ReasonRA, isICMP, matchTransport(0, icmpRA)),
		dropRule(ReasonND, isICMP, span(icmpRS, icmpRenumber)),
		dropRule(ReasonND, isICMP, span(icmpInverseNS, icmpInverseNA)),
	}
}

// own4 matches an address of the container at an offset of the network header.
func (g guard) own4(offset int) []expr.Any {
	return []expr.Any{loadMeta(expr.MetaKeyIIFNAME, 0), loadField(expr.PayloadBaseNetworkHeader, offset, 4, 4), lookup(g.set4)}
}

func (g guard) own6(base expr.PayloadBase, offset int) []expr.Any {
	return []expr.Any{loadMeta(expr.MetaKeyIIFNAME, 0), loadField(base, offset, 16, 4), lookup(g.set6)}
}

// sources are the addresses that a container may send from on one link: its own,
// and the link-local one that comes from its hardware address.
func sources(i Interface, mac net.HardwareAddr) []netip.Addr {
	out := []netip.Addr{linkLocal(mac)}
	for _, p := range i.Addresses {
		out = append(out, p.Addr())
	}
	return out
}
