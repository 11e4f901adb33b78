package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

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
func segmentsOf(s *socket, c Config, addrs []netip.Prefix) ([]segment, error) {
	var bridges []string
	for _, i := range c.Interfaces {
		if i.Bridge != "" {
			bridges = append(bridges, i.Bridge)
		}
	}
	networks, err := hostNetworks(s, bridges)
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

// hostNetwork is an Ethernet link of the host that is no container's, and no port
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

// hostNetworks finds the networks that the host has an address on, and those whose
// links are named or numbered. Containers' links are not asked for one by one, and
// links are not listed: with hundreds of them in namespaces of their own that takes
// the kernel longer than all the rest.
func hostNetworks(s *socket, names []string, numbers ...int) ([]hostNetwork, error) {
	addresses, err := s.addrs(unix.AF_UNSPEC, 0)
	if err != nil {
		return nil, err
	}
	of := make(map[int][]netip.Prefix)
	for _, a := range addresses {
		if !a.tentative {
			of[a.index] = append(of[a.index], a.prefix)
		}
		ours := a.prefix == netip.PrefixFrom(gateway4, 32)
		if a6 := a.prefix.Addr(); !ours && !(a6.Is6() && a6.IsLinkLocalUnicast()) {
			numbers = append(numbers, a.index)
		}
	}
	var links []linkInfo
	add := func(l linkInfo, found bool, err error) error {
		if found && !slices.ContainsFunc(links, func(o linkInfo) bool { return o.index == l.index }) {
			links = append(links, l)
		}
		return err
	}
	for _, name := range names {
		if err := add(s.linkNamed(name)); err != nil {
			return nil, err
		}
	}
	slices.Sort(numbers)
	for _, index := range slices.Compact(numbers) {
		if err := add(s.linkAt(index)); err != nil {
			return nil, err
		}
	}
	var networks []hostNetwork
	for _, l := range links {
		mac, err := net.ParseMAC(l.mac)
		if err != nil || !l.asks || l.master != 0 || len(mac) != 6 || linkPattern.MatchString(l.name) {
			continue
		}
		networks = append(networks, hostNetwork{l.index, l.name, mac, l.up, of[l.index]})
	}
	return networks, nil
}
