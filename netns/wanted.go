package netns

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
)

const (
	// RouteProtocol marks the routes that this package makes, and the addresses,
	// rules and proxy entries, where the kernel keeps such a mark (rtm_protocol,
	// see rtnetlink(7); ip-route(8) shows "proto 199").
	RouteProtocol = 199
	// routeTables is the first of the routing tables inside that hold the default
	// routes of further interfaces, one for each index.
	routeTables = 19900

	mainTable  = 254
	defaultMTU = 1500
	// metric6 is what the kernel makes of an IPv6 route's metric 0.
	metric6 = 1024
	// highByte is the first byte of a bridge port's hardware address. A bridge
	// takes the lowest of its ports' for its own, and must not take one of ours.
	highByte = 0xfe
)

var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
	any4     = netip.MustParsePrefix("0.0.0.0/0")
	any6     = netip.MustParsePrefix("::/0")
)

// facts are what the wanted state takes from the host besides the configuration.
type facts struct {
	mtu     map[string]int // of the bridges
	subnets []subnet
	// foreign means that the host has a ctctl0 that was not made here.
	foreign bool
}

// subnet is a network whose hosts look for each other on a link of the host.
type subnet struct {
	prefix netip.Prefix
	link   string
}

// plan collects the wanted state.
type plan struct {
	c     Config
	f     facts
	stage Stage
	out   state
	// v4 and v6 say that the host has to forward.
	v4, v6 bool
}

// wanted is the state of stage Joined or Held. Without the container's side, the
// things there are left out.
func wanted(c Config, stage Stage, inside bool, f facts) state {
	p := plan{c: c, f: f, stage: stage}
	if inside {
		p.add(item{kind: kindSetting, inside: true, name: "mptcp/enabled"}, value{text: "0"})
		p.add(item{kind: kindEnd, inside: true, link: "lo"}, value{name: "lo", up: true})
	}
	for n, i := range c.Interfaces {
		p.pair(i)
		if inside {
			p.inside(n, i)
		}
		if stage == Joined && i.Bridge == "" {
			p.routed(i)
		}
	}
	if stage == Joined {
		p.forwarding()
	}
	return p.out
}

// add ignores what is there already: interfaces share some things of the host.
func (p *plan) add(i item, v value) {
	if i.inside || !slices.ContainsFunc(p.out, func(t thing) bool { return t.item == i }) {
		p.out = append(p.out, thing{i, v})
	}
}

func (p *plan) setting(link string, inside bool, name, text string) {
	p.add(item{kind: kindSetting, inside: inside, link: link, name: name}, value{text: text})
}

func (p *plan) mtu(i Interface) int {
	if i.MTU != 0 {
		return i.MTU
	}
	if mtu := p.f.mtu[i.Bridge]; mtu != 0 {
		return mtu
	}
	return defaultMTU
}

// macs are the hardware addresses of both ends.
func (c Config) macs(i Interface) (container, host net.HardwareAddr) {
	container, host = MACFor(c.UID, i.Index)
	if given, err := net.ParseMAC(i.MAC); err == nil {
		container = given
	}
	if i.Bridge != "" {
		host[0] = highByte
	}
	return container, host
}

// pair is the host's end with its settings. The container is not trusted: it may
// not advertise routers, redirect the host's packets, or send from addresses that
// are not routed to it (rp_filter, IPv4 only). A bridge's port has no IP at all.
func (p *plan) pair(i Interface) {
	link := p.c.hostLink(i.Index)
	_, mac := p.c.macs(i)
	p.add(item{kind: kindPair, link: link},
		value{mac: mac.String(), mtu: p.mtu(i), up: p.stage == Joined, bridge: i.Bridge})
	if i.Bridge != "" {
		p.setting(link, false, disableIPv6, "1")
		if i.Bridge == OwnBridge && !p.f.foreign {
			p.ownBridge()
		}
		return
	}
	p.setting(link, false, "ipv4/conf/*/forwarding", "1")
	p.setting(link, false, "ipv4/conf/*/rp_filter", "1")
	p.setting(link, false, "ipv4/conf/*/accept_redirects", "0")
	if !i.has6() {
		p.setting(link, false, disableIPv6, "1")
		return
	}
	for _, s := range [][2]string{
		{"disable_ipv6", "0"},
		{"accept_ra", "0"},
		{"accept_redirects", "0"},
		{"accept_dad", "0"},
		{"addr_gen_mode", "1"}, // none: fe80::1 is the only link-local address
		{"forwarding", "1"},
	} {
		p.setting(link, false, "ipv6/conf/*/"+s[0], s[1])
	}
}

// routed is what the host has of a routed interface when packets pass.
func (p *plan) routed(i Interface) {
	link := p.c.hostLink(i.Index)
	mac, _ := p.c.macs(i)
	if i.has4() {
		p.add(item{kind: kindAddress, link: link, dst: host(gateway4)}, value{})
	}
	if i.has6() {
		p.add(item{kind: kindAddress, link: link, dst: netip.PrefixFrom(gateway6, 64)}, value{})
	}
	for _, a := range i.addrs() {
		p.add(item{kind: kindNeighbour, link: link, dst: host(a)}, value{mac: mac.String()})
		p.add(item{kind: kindRoute, dst: host(a)}, value{device: link})
	}
	for _, x := range i.proxied(p.f) {
		p.proxy(x.link, x.dst.Addr())
	}
	p.v4 = p.v4 || i.NAT && i.has4()
	p.v6 = p.v6 || i.NAT && i.has6()
}

// proxied are the entries for addresses that the hosts on another link of the
// host believe to be their neighbours. Addresses that are hidden by NAT have none:
// nobody outside looks for them, or else means a host of the same address there.
func (i Interface) proxied(f facts) []item {
	var out []item
	for _, a := range i.addrs() {
		for _, s := range f.subnets {
			if !i.NAT && i.Bridge == "" && s.prefix.Contains(a) {
				out = append(out, item{kind: kindProxy, link: s.link, dst: host(a)})
			}
		}
	}
	return out
}

// proxy makes the host answer for an address. The kernel would wait up to 0.8
// seconds before that, to let the address's owner be first; there is none.
func (p *plan) proxy(link string, a netip.Addr) {
	p.add(item{kind: kindProxy, link: link, dst: host(a)}, value{})
	if a.Is4() {
		p.v4 = true
		p.setting("", false, "ipv4/neigh/"+link+"/proxy_delay", "0")
		return
	}
	p.v6 = true
	p.setting("", false, "ipv6/neigh/"+link+"/proxy_delay", "0")
	p.setting("", false, "ipv6/conf/"+link+"/proxy_ndp", "1")
}

// forwarding is turned on for every link of the host: answers arrive on links
// that are not ours to know.
func (p *plan) forwarding() {
	for _, i := range p.c.Interfaces {
		published := len(p.c.Forwards) > 0 || i.Bridge == OwnBridge
		p.v4 = p.v4 || published && i.has4()
		p.v6 = p.v6 || published && i.has6()
	}
	if p.v4 {
		p.setting("", false, "ipv4/ip_forward", "1")
	}
	if p.v6 {
		p.setting("", false, forwarding6, "1")
	}
}

// inside is the container's end of interface number n.
func (p *plan) inside(n int, i Interface) {
	link := p.c.hostLink(i.Index)
	mac, hostMAC := p.c.macs(i)
	// Duplicate address detection would keep an address unusable for a second or
	// more, in which restored sockets could not be bound; addresses and routers
	// are configured, never advertised.
	p.setting(link, true, "ipv6/conf/*/accept_dad", "0")
	p.setting(link, true, "ipv6/conf/*/accept_ra", "0")
	// An address that goes must not take the others of its network along.
	p.setting(link, true, "ipv4/conf/*/promote_secondaries", "1")
	if i.has6() {
		p.setting(link, true, disableIPv6, "0")
	}
	p.add(item{kind: kindEnd, inside: true, link: link},
		value{name: i.Name, mac: mac.String(), mtu: p.mtu(i), up: true})
	for _, a := range i.Addresses {
		if i.Bridge == "" {
			a = host(a.Addr())
		}
		p.add(item{kind: kindAddress, inside: true, link: link, dst: a}, value{})
	}
	if i.has6() {
		p.add(item{kind: kindAddress, inside: true, link: link, dst: netip.PrefixFrom(linkLocal(mac), 64)}, value{})
	}
	for _, gw := range i.gateways() {
		if i.Bridge == "" {
			// Neither end ever has to ask for the other.
			p.add(item{kind: kindNeighbour, inside: true, link: link, dst: host(gw)}, value{mac: hostMAC.String()})
		}
		p.defaultRoute(n, i, gw)
	}
	for _, r := range i.Routes {
		p.add(routeItem(r.To, mainTable, r.Metric), p.c.via(i, r))
	}
}

// routeItem is a route inside. The kernel takes no two of a table with the same
// destination and metric, whatever link they lead to.
func routeItem(to netip.Prefix, table, metric int) item {
	if to.Addr().Is6() && metric == 0 {
		metric = metric6
	}
	return item{kind: kindRoute, inside: true, dst: to, table: table, metric: metric}
}

// defaultRoute is in the main table for the first interface that has one. What
// answers from an address of another interface leaves through that one: rules
// lead it to a table with the interface's own default route, after everything in
// the main table that is more specific.
func (p *plan) defaultRoute(n int, i Interface, gw netip.Addr) {
	to, table := any4, mainTable
	if gw.Is6() {
		to = any6
	}
	for _, earlier := range p.c.Interfaces[:n] {
		for _, other := range earlier.gateways() {
			if other.Is4() == gw.Is4() {
				table = routeTables + i.Index
			}
		}
	}
	p.add(routeItem(to, table, 0), value{device: p.c.hostLink(i.Index), via: gw, onlink: gw == gateway4})
	if table == mainTable {
		return
	}
	for _, a := range i.addrs() {
		if a.Is4() != gw.Is4() {
			continue
		}
		for k, target := range []int{mainTable, table} {
			p.add(item{
				kind: kindRule, inside: true, link: p.c.hostLink(i.Index), dst: host(a),
				table: target, metric: routeTables + 2*i.Index + k,
			}, value{})
		}
	}
}

// via is where a route of the interface leads.
func (c Config) via(i Interface, r Route) value {
	v := value{device: c.hostLink(i.Index), via: r.Via}
	switch {
	case r.Via.IsValid() || i.Bridge != "":
	case r.To.Addr().Is4():
		v.via, v.onlink = gateway4, true
	default:
		v.via = gateway6
	}
	return v
}

// gateways are the default routers of an interface, for the families it has.
func (i Interface) gateways() []netip.Addr {
	if i.Bridge != "" && (i.Bridge != OwnBridge || len(i.Gateways) > 0) {
		return i.Gateways
	}
	if i.Bridge != "" {
		return i.ownGateways()
	}
	var out []netip.Addr
	if i.has4() {
		out = append(out, gateway4)
	}
	if i.has6() {
		out = append(out, gateway6)
	}
	return out
}

func (i Interface) addrs() []netip.Addr {
	out := make([]netip.Addr, 0, len(i.Addresses))
	for _, p := range i.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

func (i Interface) has4() bool { return hasFamily(i.Addresses, netip.Addr.Is4) }
func (i Interface) has6() bool { return hasFamily(i.Addresses, netip.Addr.Is6) }

func hasFamily(prefixes []netip.Prefix, is func(netip.Addr) bool) bool {
	for _, p := range prefixes {
		if is(p.Addr()) {
			return true
		}
	}
	return false
}

// linkLocal is the address that the kernel makes from a hardware address when
// the link gets its carrier (RFC 4291, appendix A). That is not before the host's
// end is up, and sockets bound to it are restored before, so it is added beforehand.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// indexOf is the index of the container's interface that the host's link is for.
func (c Config) indexOf(link string) (int, bool) {
	base := c.hostLink(0)
	switch {
	case link == base:
		return 0, true
	case len(link) != len(base)+1 || link[:len(base)] != base:
		return 0, false
	}
	n, err := strconv.ParseInt(link[len(base):], 36, 8)
	return int(n), err == nil && c.hostLink(int(n)) == link
}
