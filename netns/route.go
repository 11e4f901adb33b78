package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

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

// holderOf asks the kernel's routing decision instead of listing routes: it
// costs the same however many routes there are. RTM_F_FIB_MATCH makes it answer
// with the matched entry, so that its prefix length is known.
func (s *socket) holderOf(a netip.Addr) (holder, error) {
	r, err := s.routeTo(a, 0)
	switch {
	case errors.Is(err, unix.EINVAL):
		return holder{blackhole: true}, nil
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return holder{}, nil
	case err != nil:
		return holder{}, fmt.Errorf("look up route for %s: %w", a, err)
	case !r.dst.IsSingleIP():
		return holder{}, nil
	}
	return holder{index: r.index, local: r.typ != unix.RTN_UNICAST}, nil
}

// routeTo returns the entry that decides where packets to an address go, those
// sent through a certain link if index is not 0.
func (s *socket) routeTo(a netip.Addr, index int) (r routeInfo, err error) {
	body := routeBody(unix.RtMsg{Family: familyOf(a), Dst_len: uint8(a.BitLen()), Flags: unix.RTM_F_FIB_MATCH})
	body = body.attr(unix.RTA_DST, a.AsSlice())
	if index != 0 {
		body = body.u32(unix.RTA_OIF, index)
	}
	err = s.ask(unix.RTM_GETROUTE, 0, body, func(b []byte) { r, _ = readRoute(b) })
	return r, err
}

// claim refuses addresses that somebody else holds.
func (k *kernel) claim(holders map[netip.Addr]holder, c Config) error {
	for _, i := range c.Interfaces {
		for _, a := range i.addrs() {
			if o := holders[a]; o.local || o.index != 0 {
				return fmt.Errorf("interface %s: %w", i.Name, k.inUse(a, o))
			}
		}
	}
	return nil
}

func (k *kernel) inUse(a netip.Addr, o holder) error {
	name := fmt.Sprintf("number %d", o.index)
	if l, found, err := k.host.linkAt(o.index); err == nil && found {
		name = l.name
	}
	if o.local {
		return fmt.Errorf("%w: %s is the host's own, on link %s", ErrAddressInUse, a, name)
	}
	return fmt.Errorf("%w: %s is reached through link %s", ErrAddressInUse, a, name)
}

// subnetsAround returns the networks that the host's links are on, as far as they
// contain one of the addresses. Containers' links are not asked for.
func (k *kernel) subnetsAround(addrs []netip.Addr) ([]subnet, error) {
	var out []subnet
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		ours := func(a netip.Addr) bool { return familyOf(a) == family }
		if !slices.ContainsFunc(addrs, ours) {
			continue
		}
		all, err := k.host.addrs(family, 0)
		if err != nil {
			return nil, err
		}
		for _, x := range all {
			if x.prefix.IsSingleIP() || x.prefix.Addr() == gateway6 || !slices.ContainsFunc(addrs, x.prefix.Contains) {
				continue
			}
			l, found, err := k.host.linkAt(x.index)
			if err != nil {
				return nil, err
			}
			if found && l.name != "lo" && !linkPattern.MatchString(l.name) {
				out = append(out, subnet{x.prefix.Masked(), l.name})
			}
		}
	}
	return out, nil
}

// hostLinkNamed finds a link of the host; none of that name is an ErrNoLink.
func (k *kernel) hostLinkNamed(name string) (linkInfo, error) {
	l, found, err := k.host.linkNamed(name)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s", ErrNoLink, name)
	}
	return l, err
}

// isAbsent recognises what the kernel says when the link, address, route, rule or
// packet filter object to delete is not there.
func isAbsent(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.EADDRNOTAVAIL)
}
