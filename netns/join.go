package netns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// join opens the host's end of a connection made by Attach: gateway
// addresses, host routes (also over the blackholes of Leave), forwarding, and
// with pair.NAT the masquerading and host-wide forwarding that it needs. It
// may be repeated.
//
// After an error the host's end is down again, and addresses that were
// blackholed before are again. Host-wide settings stay.
//
// Errors: ErrConfig, ErrNoIPv6, ErrNoLink, ErrLinkName, ErrAddressInUse.
func join(ctx context.Context, c pair) (err error) {
	defer wrapOp("join", c.Name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := vethNamed(h, c.Name)
	if err != nil {
		return err
	}
	if link == nil {
		return ErrNoLink
	}
	before, err := claim(h, c.addrs(), link.Attrs().Index)
	if err != nil {
		return err
	}
	if err := run(ctx, joinSteps(h, link, c)); err != nil {
		return errors.Join(err, unjoin(h, link, c, before))
	}
	return nil
}

// joinSteps are ordered so that the first packet that passes finds everything
// in place: a connection that passed once without NAT would stay without it, as
// connection tracking decides at a connection's first packet.
func joinSteps(h *netlink.Handle, link netlink.Link, c pair) []step {
	steps := append(linkSettings(c), natSteps(h, c)...)
	if c.hasIPv4() {
		steps = append(steps, addressStep(h, link, netip.PrefixFrom(gateway4, 32), netlink.SCOPE_LINK))
	}
	steps = append(steps, step{"set link up", func() error { return h.LinkSetUp(link) }})
	if c.hasIPv6() {
		steps = append(steps, addressStep(h, link, netip.PrefixFrom(gateway6, 64), netlink.SCOPE_LINK))
	}
	index := link.Attrs().Index
	for _, a := range c.addrs() {
		route := hostRoute(a, index)
		steps = append(steps,
			neighbourStep(h, index, a, c.MAC),
			step{"route " + a.String(), func() error { return h.RouteReplace(route) }})
	}
	if c.hasIPv6() {
		steps = append(steps, step{"wait for " + gateway6.String(), func() error { return awaitLocal(h, gateway6, index) }})
	}
	return append(steps, step{"wait for the container's end", func() error { return awaitPeer(link) }})
}

// prepare does ahead of time what Join does for pair.NAT: host-wide
// forwarding and the NAT entries, the only slow part of a Join. It is for
// callers that count the time until Join returns, as a container's clients wait
// meanwhile; calling it is optional, and it may be repeated. Leave without
// blackhole removes the entries, whether a link was made or not.
//
// Errors: ErrConfig, ErrNoIPv6.
func prepare(ctx context.Context, c pair) (err error) {
	defer wrapOp("prepare", c.Name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	return run(ctx, natSteps(h, c))
}

func natSteps(h *netlink.Handle, c pair) []step {
	if !c.NAT {
		return []step{{"remove NAT", func() error { return removeNAT(c.addrs()) }}}
	}
	var steps []step
	if c.hasIPv4() {
		steps = append(steps, step{"turn on IPv4 forwarding", func() error { return forwardIPv4(c.log()) }})
	}
	if c.hasIPv6() {
		steps = append(steps, step{"turn on IPv6 forwarding", func() error { return forwardIPv6(h, c.log()) }})
	}
	return append(steps, step{"add NAT", func() error { return addNAT(c.Name, c.addrs()) }})
}

// linkSettings are the kernel's settings for the host's end. The container is
// not trusted: it may not advertise routers, redirect the host's packets, or
// send from addresses that are not routed to it (rp_filter, IPv4 only).
func linkSettings(c pair) []step {
	v4 := func(value, name string) step { return sysctlStep(value, "ipv4", "conf", c.Name, name) }
	v6 := func(value, name string) step { return optionalSysctlStep(value, "ipv6", "conf", c.Name, name) }
	steps := []step{v4("1", "forwarding"), v4("1", "rp_filter"), v4("0", "accept_redirects")}
	if !c.hasIPv6() {
		return append(steps, v6("1", "disable_ipv6"))
	}
	return append(
		steps,
		v6("0", "disable_ipv6"),
		v6("0", "accept_ra"),
		v6("0", "accept_redirects"),
		v6("0", "accept_dad"),
		v6("1", "addr_gen_mode"), // none: fe80::1 is the only link-local address
		v6("1", "forwarding"),
	)
}

// forwardIPv4 turns on forwarding for every link of the host: answers arrive on
// links that are not ours to know.
func forwardIPv4(log *slog.Logger) error {
	return setHostWide(log, "1", "ipv4", "ip_forward")
}

// forwardIPv6 does the same for IPv6, which has no forwarding by link before
// Linux 6.17. Turning it on makes the kernel ignore router advertisements and
// drop the default route learnt from them, except on links with accept_ra=2
// (kernel documentation, networking/ip-sysctl); so links that listen to
// advertisements are changed to that first.
func forwardIPv6(h *netlink.Handle, log *slog.Logger) error {
	on, err := os.ReadFile(sysctlPath("ipv6", "conf", "all", "forwarding"))
	if err != nil {
		return err
	}
	if on[0] == '1' {
		return nil
	}
	links, err := listLinks(h)
	if err != nil {
		return err
	}
	for _, l := range links {
		name := l.Attrs().Name
		if linkName.MatchString(name) {
			continue
		}
		b, err := os.ReadFile(sysctlPath("ipv6", "conf", name, "accept_ra"))
		if errors.Is(err, os.ErrNotExist) {
			continue // gone meanwhile, or too small an MTU for IPv6
		}
		if err != nil {
			return err
		}
		if b[0] != '1' {
			continue
		}
		if err := setHostWide(log, "2", "ipv6", "conf", name, "accept_ra"); err != nil {
			return err
		}
	}
	return setHostWide(log, "1", "ipv6", "conf", "all", "forwarding")
}

func setHostWide(log *slog.Logger, value string, elem ...string) error {
	path := sysctlPath(elem...)
	before, err := setSysctl(path, value)
	if err != nil {
		return err
	}
	if before != value {
		log.Info(fmt.Sprintf("host-wide setting %s changed from %s to %s", path, before, value), "op", "join")
	}
	return nil
}

// unjoin brings the host back to what claim found, after Join failed midway.
// Setting the link down removes its routes and neighbours.
func unjoin(h *netlink.Handle, link netlink.Link, c pair, before map[netip.Addr]holder) error {
	var errs []error
	var free []netip.Addr
	for _, a := range c.addrs() {
		if !before[a].blackhole {
			free = append(free, a)
			continue
		}
		if err := h.RouteReplace(blackholeRoute(a)); err != nil {
			errs = append(errs, fmt.Errorf("restore blackhole route for %s: %w", a, err))
		}
	}
	if err := h.LinkSetDown(link); err != nil && !isAbsent(err) {
		errs = append(errs, fmt.Errorf("set link down: %w", err))
	}
	if c.NAT {
		errs = append(errs, removeNAT(free))
	}
	return errors.Join(errs...)
}
