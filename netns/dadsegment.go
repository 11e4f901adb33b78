package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// segment is a link of the host behind which addresses are to be looked for.
type segment struct {
	index     int
	name      string
	mac       net.HardwareAddr
	questions []question
}

// question is an address, and one that the host has in the same network, if any.
type question struct {
	address, sender netip.Addr
}

// segmentsOf finds out where the addresses would live.
func segmentsOf(h *netlink.Handle, c Config, addrs []netip.Prefix) ([]segment, error) {
	networks, err := hostNetworks(h)
	if err != nil {
		return nil, err
	}
	var segments []segment
	for _, p := range addrs {
		i, ok := interfaceOf(c, p.Addr())
		if !ok {
			return nil, badConfig("address %s is on no interface of the container", p.Addr())
		}
		found := 0
		for _, n := range networks {
			q := question{address: p.Addr(), sender: n.sender(p)}
			switch {
			case i.Bridge != "" && n.name != i.Bridge:
				continue
			case i.Bridge == "" && !n.onLink(p.Addr()):
				continue
			}
			found++
			if slices.ContainsFunc(n.addresses, func(a netip.Prefix) bool { return a.Addr() == p.Addr() }) {
				return nil, &TakenError{Address: p.Addr(), MAC: n.mac, Link: n.name}
			}
			if n.up {
				segments = addQuestion(segments, n, q)
			}
		}
		if i.Bridge != "" && i.Bridge != OwnBridge && found == 0 {
			return nil, fmt.Errorf("%w: %s", ErrNoBridge, i.Bridge)
		}
	}
	return segments, nil
}

func addQuestion(segments []segment, n hostNetwork, q question) []segment {
	for i := range segments {
		if segments[i].index == n.index {
			segments[i].questions = append(segments[i].questions, q)
			return segments
		}
	}
	return append(segments, segment{n.index, n.name, n.mac, []question{q}})
}

func interfaceOf(c Config, a netip.Addr) (Interface, bool) {
	for _, i := range c.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr() == a {
				return i, true
			}
		}
	}
	return Interface{}, false
}

// network is an Ethernet link of the host that is no container's, and no port
// of a bridge, with the addresses of the host there.
type hostNetwork struct {
	index     int
	name      string
	mac       net.HardwareAddr
	up        bool
	addresses []netip.Prefix
}

// onLink says whether the host reaches a through this link without a router.
func (n hostNetwork) onLink(a netip.Addr) bool {
	return slices.ContainsFunc(n.addresses, func(p netip.Prefix) bool { return !p.IsSingleIP() && p.Contains(a) })
}

// sender is an address of the host from which one in the network p can be asked
// for in the usual way.
func (n hostNetwork) sender(p netip.Prefix) netip.Addr {
	for _, own := range n.addresses {
		if own.Addr() != p.Addr() && !own.IsSingleIP() && own.Contains(p.Addr()) {
			return own.Addr()
		}
	}
	return netip.Addr{}
}

func hostNetworks(h *netlink.Handle) ([]hostNetwork, error) {
	links, err := listLinks(h)
	if err != nil {
		return nil, err
	}
	addresses, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	of := make(map[int][]netip.Prefix)
	for _, a := range addresses {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ones, _ := a.Mask.Size(); ok && a.Flags&unix.IFA_F_TENTATIVE == 0 {
			of[a.LinkIndex] = append(of[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	var networks []hostNetwork
	for _, l := range links {
		attrs := l.Attrs()
		ethernet := attrs.EncapType == "ether" && attrs.RawFlags&unix.IFF_NOARP == 0
		if !ethernet || attrs.MasterIndex != 0 || len(attrs.HardwareAddr) != 6 || linkPattern.MatchString(attrs.Name) {
			continue
		}
		networks = append(networks, hostNetwork{
			attrs.Index, attrs.Name, attrs.HardwareAddr, attrs.RawFlags&unix.IFF_UP != 0, of[attrs.Index],
		})
	}
	return networks, nil
}
