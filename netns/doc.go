// Package netns connects a container's network namespace to its host, and keeps
// the connection as a [Config] wants it.
//
//	 container's namespace                 host's namespace
//	┌───────────────────────┐            ┌──────────────────────────────────┐
//	│ eth0  10.9.0.5/32     │   veth     │ ct0123456789ab  169.254.1.1/32   │
//	│       fd09::5/128     ├────────────┤                 fe80::1/64       │
//	│ default via           │            │ 10.9.0.5/32 dev ct0123456789ab   │
//	│   169.254.1.1 onlink  │            │ fd09::5/128 dev ct0123456789ab   │
//	│   fe80::1             │            │ masquerade when leaving the host │
//	├───────────────────────┤            ├──────────────────────────────────┤
//	│ eth1  10.8.0.5/24     ├────────────┤ ct0123456789ab1  port of br0     │
//	│ 10.8.0.0/24, gateway  │            │                                  │
//	└───────────────────────┘            └──────────────────────────────────┘
//
// A routed interface (the default, eth0 above) needs no bridge: every address is
// a host route, so nothing has to be announced when a container comes back, and
// the two gateway addresses are the same for every container on every host.
// Neighbour entries on both sides are permanent, so that the first packet after a
// restore waits for no resolution. Where an address lies in a network that one of
// the host's own links is on, and is not hidden by NAT, the host answers for it
// there (proxy ARP and NDP).
//
// A bridged interface (eth1) is a port of a bridge of the host, with real prefix
// lengths, and gateways on the bridge's network. The bridge named [OwnBridge] is
// made when it is needed. What answers from an address of a second interface goes
// out through it, by rules of policy routing inside.
//
// # One operation
//
// [Apply] reads what is there, in a few messages whose number does not depend on
// the host's other containers, works out the difference as plain data (diff), and
// does it. It knows stages, because a restore needs the halves of the connection
// apart: [Attach] makes the container's side, which CRIU needs before it restores
// sockets, and nothing reaches it yet. [Join] opens the host's side, once CRIU has
// locked the restored connections: packets that arrive earlier would be answered
// with a reset by a kernel that does not know the connection yet. [Leave] takes
// the connection down, and can leave blackhole routes behind, so that the clients
// of a suspended container hear silence (and keep their connections, by TCP's
// retransmissions) instead of errors. On the host itself a new connection to a
// blackholed address fails at once with EINVAL, see ip-route(8); established ones
// only retransmit. [Silence] is the quick beginning of that.
//
// Every function works in the network namespace of the calling process. What it
// makes is recognisable. On the host, links are named "ct" and twelve hexadecimal
// digits, for further interfaces and one more character; routes and proxy entries
// carry the protocol number [RouteProtocol]; packet filter objects are in tables
// called ctctl. Inside, routes, rules and (since Linux 5.18) addresses carry that
// number too: whatever else is there is the container's admin's, and left alone.
//
// # Settings of a container's namespace
//
//	net.mptcp.enabled=0                  programs in Go listen with MPTCP where it is on, and CRIU
//	                                     cannot dump its sockets ("Unsupported proto 262")
//	net.ipv6.conf.IF.accept_dad=0        an address is usable at once; sockets that are restored are
//	                                     bound before the second that detection would take is over
//	net.ipv6.conf.IF.accept_ra=0         addresses and routers are configured, not advertised
//	net.ipv6.conf.IF.disable_ipv6=0      with an IPv6 address
//	net.ipv4.conf.IF.promote_secondaries=1  an address that is removed does not take the others of
//	                                     its network along
//
// They are set whenever Apply looks at the container's side. On the host's end of
// a routed interface forwarding and rp_filter are on, redirects, router
// advertisements and address generation off; a bridge's port has no IPv6 at all.
// Host-wide are only forwarding (for NAT, forwards and proxies), and on links with
// proxy entries proxy_ndp and proxy_delay; they are changed when they are needed,
// which is logged, and stay.
package netns
