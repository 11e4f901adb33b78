// Package netns connects a container's network namespace to its host by one
// routed veth pair.
//
//	 container's namespace                 host's namespace
//	┌───────────────────────┐            ┌──────────────────────────────────┐
//	│ eth0  10.9.0.5/32     │   veth     │ ct0123456789ab  169.254.1.1/32   │
//	│       fd09::5/128     ├────────────┤                 fe80::1/64       │
//	│ default via           │            │ 10.9.0.5/32 dev ct0123456789ab   │
//	│   169.254.1.1 onlink  │            │ fd09::5/128 dev ct0123456789ab   │
//	│   fe80::1             │            │ masquerade when leaving the host │
//	└───────────────────────┘            └──────────────────────────────────┘
//
// There is no bridge: every address is a host route, so nothing has to be
// announced when a container comes back, and the two gateway addresses are the
// same for every container on every host. Neighbour entries on both sides are
// permanent, so that the first packet after a restore waits for no resolution.
//
// The connection is made in two halves, because a restore needs them apart.
// [Attach] makes the pair and configures the container's side, which CRIU needs
// before it restores sockets; nothing reaches the container yet. [Join] opens
// the host's side, once CRIU has locked the restored connections: packets that
// arrive earlier would be answered with a reset by a kernel that does not know
// the connection yet. [Leave] takes the connection down again, and can leave
// blackhole routes behind, so that the clients of a suspended container hear
// silence (and keep their connections, by TCP's retransmissions) instead of
// errors. On the host itself a new connection to a blackholed address fails at
// once with EINVAL, see ip-route(8); established ones only retransmit.
//
// Every function works in the network namespace of the calling process. What
// it makes there is recognisable: links are named "ct" and twelve hexadecimal
// digits, routes carry the protocol number [RouteProtocol], packet filter
// objects are in the table "inet ctctl".
package netns
