package netns

import (
	"context"
	"errors"
	"fmt"
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
	// each IP version. A routed one has the host, by a link-local address.
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
	name := "ct" + c.UID[:min(12, len(c.UID))]
	if index == 0 {
		return name
	}
	return name + strconv.FormatInt(int64(index), 36)
}

// pair is the one routed interface of the configuration.
func (c Config) pair() (pair, error) {
	if len(c.Interfaces) > 1 {
		return pair{}, badConfig("there is more than one interface")
	}
	mac, host := MACFor(c.UID, 0)
	p := pair{Name: c.hostLink(0), MAC: mac, HostMAC: host, Log: c.Log}
	for _, i := range c.Interfaces {
		p.Addresses, p.MTU, p.NAT = i.Addresses, i.MTU, i.NAT
		if i.MAC == "" {
			continue
		}
		var err error
		if p.MAC, err = net.ParseMAC(i.MAC); err != nil {
			return pair{}, errors.Join(ErrConfig, fmt.Errorf("interface %s: %w", i.Name, err))
		}
	}
	return p, nil
}

func (c Config) on(do func(pair) error) error {
	p, err := c.pair()
	if err != nil {
		return err
	}
	return do(p)
}

// Attach makes the container's side complete; nothing reaches it until [Join].
func Attach(ctx context.Context, pid int, c Config) error {
	return c.on(func(p pair) error { return attach(ctx, pid, p) })
}

// Join opens the host's side.
func Join(ctx context.Context, c Config) error {
	return c.on(func(p pair) error { return join(ctx, p) })
}

// Prepare does the slow part of [Join] ahead of time.
func Prepare(ctx context.Context, c Config) error {
	return c.on(func(p pair) error { return prepare(ctx, p) })
}

// Silence drops what is sent to the container.
func Silence(ctx context.Context, c Config) error {
	return c.on(func(p pair) error { return silence(ctx, p) })
}

// Leave removes the host's side, with blackhole but for routes that swallow.
func Leave(ctx context.Context, c Config, blackhole bool) error {
	return c.on(func(p pair) error { return leave(ctx, p, blackhole) })
}
