package netns

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks the routes that this package makes in the host's main
// table (rtm_protocol, see rtnetlink(7); ip-route(8) shows "proto 199").
const RouteProtocol = 199

// holder says who answers for an address on the host.
type holder struct {
	// index of the link that has a route for exactly this address; 0 if none.
	index int
	// local means that the address is the host's own (or one of its broadcast
	// addresses), on the link index.
	local bool
	// blackhole means that packets to the address are thrown away.
	blackhole bool
}

// of says whether the address belongs to somebody else than the link index.
func (o holder) foreign(index int) bool {
	return o.local || (o.index != 0 && o.index != index)
}

// holderOf asks the kernel's routing decision instead of listing routes: it
// costs the same however many routes there are. RTM_F_FIB_MATCH makes it answer
// with the matched entry, so that its prefix length is known.
func holderOf(h *netlink.Handle, a netip.Addr) (holder, error) {
	routes, err := h.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	switch {
	case errors.Is(err, unix.EINVAL):
		return holder{blackhole: true}, nil
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return holder{}, nil
	case err != nil:
		return holder{}, fmt.Errorf("look up route for %s: %w", a, err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if ones, _ := r.Dst.Mask.Size(); ones != a.BitLen() {
			continue
		}
		index := r.LinkIndex
		if index == 0 && len(r.MultiPath) > 0 {
			index = r.MultiPath[0].LinkIndex
		}
		return holder{index: index, local: r.Type != unix.RTN_UNICAST}, nil
	}
	return holder{}, nil
}

// claim refuses addresses that somebody else holds, and returns the holders.
func claim(h *netlink.Handle, addrs []netip.Addr, index int) (map[netip.Addr]holder, error) {
	holders := make(map[netip.Addr]holder, len(addrs))
	for _, a := range addrs {
		o, err := holderOf(h, a)
		if err != nil {
			return nil, err
		}
		if o.foreign(index) {
			return nil, inUse(h, a, o)
		}
		holders[a] = o
	}
	return holders, nil
}

func inUse(h *netlink.Handle, a netip.Addr, o holder) error {
	name := fmt.Sprintf("number %d", o.index)
	if link, err := h.LinkByIndex(o.index); err == nil {
		name = link.Attrs().Name
	}
	if o.local {
		return fmt.Errorf("%w: %s is the host's own, on link %s", ErrAddressInUse, a, name)
	}
	return fmt.Errorf("%w: %s is reached through link %s", ErrAddressInUse, a, name)
}

func hostRoute(a netip.Addr, index int) *netlink.Route {
	r := &netlink.Route{
		LinkIndex: index,
		Dst:       ipNet(netip.PrefixFrom(a, a.BitLen())),
		Protocol:  RouteProtocol,
	}
	if a.Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

func blackholeRoute(a netip.Addr) *netlink.Route {
	return &netlink.Route{
		Dst:      ipNet(netip.PrefixFrom(a, a.BitLen())),
		Type:     unix.RTN_BLACKHOLE,
		Protocol: RouteProtocol,
	}
}

// deleteBlackhole removes a blackhole of ours; an absent one is no error.
func deleteBlackhole(h *netlink.Handle, a netip.Addr) error {
	if err := h.RouteDel(blackholeRoute(a)); err != nil && !isAbsent(err) {
		return fmt.Errorf("delete blackhole route for %s: %w", a, err)
	}
	return nil
}

// isAbsent recognises what the kernel says when the link, route or packet
// filter object to delete is not there.
func isAbsent(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
