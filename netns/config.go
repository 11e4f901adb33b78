package netns

import (
	"crypto/sha256"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
)

// Config is what one container has of the network.
type Config struct {
	// UID is the container's, 16 lower-case hexadecimal digits: links and rules
	// on the host carry it.
	UID string
	// Interfaces in the order in which they are made.
	Interfaces []Interface
	// Forwards publish ports of the container on the host.
	Forwards []Forward
	// Isolated lets nothing in or out, but over the container's own lo.
	Isolated bool
	// Log is told which host-wide settings were changed, with their values
	// before. nil discards.
	Log *slog.Logger `json:"-"`
}

// Interface is one link of a container.
type Interface struct {
	// Name inside the container, at most 15 bytes.
	Name string `json:"name"`
	// Index is 0 to 35 and unique in the container. The name of the host's link
	// and the hardware addresses come from it, so it never changes.
	Index int `json:"index"`
	// Bridge is the host's bridge that the link is a port of; "" is routed.
	Bridge string `json:"bridge,omitempty"`
	// MAC is the container's hardware address; "" is the one of [MACFor].
	MAC string `json:"mac,omitempty"`
	// MTU of both ends in bytes; 0 is the bridge's, or the kernel's default.
	MTU int `json:"mtu,omitempty"`
	// Addresses are the container's own. Routed ones become a /32 or /128,
	// whatever their prefix length says.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Gateways are the default routers of a bridged interface, at most one for
	// each IP version. A routed one has the host, by a link-local address. On the
	// bridge ctctl0 the host is the router when none is given.
	Gateways []netip.Addr `json:"gateways,omitempty"`
	// Routes beyond the connected and the default ones.
	Routes []Route `json:"routes,omitempty"`
	// NAT hides the addresses behind the host's when packets leave the host.
	NAT bool `json:"nat,omitempty"`
	// Rate bounds what goes through the interface.
	Rate Rate `json:"rate,omitzero"`
	// NoFilter lets the container send from hardware and IP addresses that are
	// not its own.
	NoFilter bool `json:"noFilter,omitempty"`
}

// Route is a route of a container.
type Route struct {
	// To is the destination; its host bits are zero.
	To netip.Prefix `json:"to"`
	// Via is the router; invalid means that To is reached on the link itself,
	// through the host on a routed interface.
	Via netip.Addr `json:"via,omitzero"`
	// Metric is the priority, lower is better; 0 is the kernel's default.
	Metric int `json:"metric,omitempty"`
}

// Rate is in bits per second, as the container sees it; 0 is no limit.
type Rate struct {
	EgressBits  int64 `json:"egressBits,omitempty"`  // what the container sends
	IngressBits int64 `json:"ingressBits,omitempty"` // what it receives
}

// Forward is a port of the host whose traffic goes to a port of the container.
type Forward struct {
	// Protocol is tcp or udp.
	Protocol string `json:"protocol"`
	// HostAddress is where the host listens; invalid means all its addresses.
	HostAddress netip.Addr `json:"hostAddress,omitzero"`
	HostPort    uint16     `json:"hostPort"`
	// Port of the container, at its first address of the IP version.
	Port uint16 `json:"port"`
}

// hostLink is the name of the host's end: "ct", twelve digits of the uid, and
// for all but index 0 one character, which makes it the 15 bytes a name may have.
func (c Config) hostLink(index int) string {
	name := tagOf(c.UID)
	if index == 0 {
		return name
	}
	return name + strconv.FormatInt(int64(index), 36)
}

// MACFor returns the hardware addresses of both ends of a container's link
// number index: locally administered, unicast, and the same on every host,
// derived from SHA-256 of "uid/index/end". The host's end of a bridged interface
// has 0xfe as its first byte instead.
func MACFor(uid string, index int) (container, host net.HardwareAddr) {
	return macOf(uid, index, "container"), macOf(uid, index, "host")
}

func macOf(uid string, index int, end string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(uid + "/" + strconv.Itoa(index) + "/" + end))
	mac := net.HardwareAddr(sum[:6:6])
	mac[0] = mac[0]&^1 | 2 // IEEE 802: bit 0 group, bit 1 locally administered
	return mac
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
