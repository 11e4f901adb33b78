package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for one answer of the kernel.
const answerTimeout = 10 * time.Second

// openRoute opens a route socket in the namespace of the calling thread.
func openRoute() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	if err := h.SetSocketTimeout(answerTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	return h, nil
}

// attach makes the veth pair with one end in the network namespace of process
// pid, and configures that end: eth0 with its hardware address, MTU, addresses
// and default routes, lo up, MPTCP off (CRIU cannot dump its sockets), no
// duplicate address detection and no router advertisements. The host's end
// stays down and unrouted until Join.
//
// A link of the same name that is left from before is replaced. After an error
// there is no new link.
//
// Errors: ErrConfig, ErrNoIPv6, ErrNoProcess, ErrHostNamespace, ErrLinkName.
func attach(ctx context.Context, pid int, c pair) (err error) {
	defer wrapOp("attach", c.Name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	ns, err := openOf(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()

	err = run(ctx, []step{
		{"remove stale link", func() error { return deleteLink(h, c.Name) }},
		{"add veth", func() error { return addPair(h, c, ns) }},
	})
	if err != nil {
		return err
	}
	if err := enter(ns, func() error { return configureInside(ctx, c) }); err != nil {
		return errors.Join(err, deleteLink(h, c.Name))
	}
	return nil
}

// addPair makes both ends in one message, so that the container's end never
// shows up in the host's namespace, under a name that might be taken there.
func addPair(h *netlink.Handle, c pair, ns *os.File) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.Name
	attrs.HardwareAddr = c.HostMAC
	attrs.MTU = c.MTU
	return h.LinkAdd(&netlink.Veth{
		LinkAttrs:        attrs,
		PeerName:         containerLink,
		PeerHardwareAddr: c.MAC,
		PeerNamespace:    netlink.NsFd(int(ns.Fd())),
		PeerMTU:          uint32(c.MTU),
		PeerTxQLen:       -1,
	})
}

// configureInside runs on a thread inside the container's namespace.
func configureInside(ctx context.Context, c pair) error {
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	eth, err := h.LinkByName(containerLink)
	if err != nil {
		return fmt.Errorf("find %s: %w", containerLink, err)
	}
	// The settings of IPv6 come before the link is up: they decide what the
	// kernel does at that moment.
	steps := []step{
		optionalSysctlStep("0", "mptcp", "enabled"),
		optionalSysctlStep("0", "ipv6", "conf", containerLink, "accept_dad"),
		optionalSysctlStep("0", "ipv6", "conf", containerLink, "accept_ra"),
	}
	if c.hasIPv6() {
		steps = append(steps, sysctlStep("0", "ipv6", "conf", containerLink, "disable_ipv6"))
	}
	steps = append(steps,
		step{"set lo up", func() error { return h.LinkSetUp(lo) }},
		step{"set " + containerLink + " up", func() error { return h.LinkSetUp(eth) }},
	)
	index := eth.Attrs().Index
	for _, a := range c.addrs() {
		steps = append(steps, addressStep(h, eth, netip.PrefixFrom(a, a.BitLen()), netlink.SCOPE_UNIVERSE))
	}
	if c.hasIPv4() {
		steps = append(steps, gatewaySteps(h, index, gateway4, c.HostMAC)...)
	}
	if c.hasIPv6() {
		steps = append(steps, addressStep(h, eth, netip.PrefixFrom(linkLocal(c.MAC), 64), netlink.SCOPE_LINK))
		steps = append(steps, gatewaySteps(h, index, gateway6, c.HostMAC)...)
	}
	for _, a := range c.addrs() {
		steps = append(steps, step{"wait for " + a.String(), func() error { return awaitLocal(h, a, index) }})
	}
	return run(ctx, steps)
}

// linkLocal is the address that the kernel makes from a hardware address when
// the link gets its carrier (RFC 4291, appendix A). That is not before Join,
// and sockets bound to it are restored before, so it is added beforehand.
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0: 0xfe, 1: 0x80,
		8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// gatewaySteps route everything through gw, whose hardware address is known:
// neither end ever has to ask for the other.
func gatewaySteps(h *netlink.Handle, index int, gw netip.Addr, mac net.HardwareAddr) []step {
	route := netlink.Route{LinkIndex: index, Gw: gw.AsSlice(), Dst: defaultOf(gw)}
	if gw.Is4() {
		// No address of eth0 shares a network with the gateway.
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	return []step{
		neighbourStep(h, index, gw, mac),
		{"add default route via " + gw.String(), func() error { return h.RouteReplace(&route) }},
	}
}

func defaultOf(gw netip.Addr) *net.IPNet {
	bits := gw.BitLen()
	return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}

func neighbourStep(h *netlink.Handle, index int, a netip.Addr, mac net.HardwareAddr) step {
	n := netlink.Neigh{
		LinkIndex:    index,
		Family:       familyOf(a),
		State:        netlink.NUD_PERMANENT,
		IP:           a.AsSlice(),
		HardwareAddr: mac,
	}
	return step{"add neighbour " + a.String(), func() error { return h.NeighSet(&n) }}
}

// addressStep adds an address. IPv6 duplicate address detection would keep it
// unusable for a second or more, in which restored sockets could not be bound.
func addressStep(h *netlink.Handle, link netlink.Link, p netip.Prefix, scope netlink.Scope) step {
	addr := netlink.Addr{IPNet: ipNet(p), Scope: int(scope)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return step{"add address " + p.String(), func() error { return h.AddrReplace(link, &addr) }}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
