package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// performAddress adds or removes an address. IPv6 duplicate address detection
// would keep a new one unusable for a second or more.
func (k *kernel) performAddress(c change) error {
	s, index, err := k.side(c.item)
	if err != nil {
		return err
	}
	a := c.dst.Addr()
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if a.IsLinkLocalUnicast() {
		scope = unix.RT_SCOPE_LINK
	}
	flags := byte(0)
	if a.Is6() {
		flags = unix.IFA_F_NODAD
	}
	body := addrBody(familyOf(a), c.dst.Bits(), flags, scope, index).
		attr(unix.IFA_LOCAL, a.AsSlice()).attr(unix.IFA_ADDRESS, a.AsSlice())
	if c.op == opRemove {
		return s.ask(unix.RTM_DELADDR, 0, body, nil)
	}
	if a.Is4() && c.dst.Bits() < 31 {
		last := lastOf(c.dst)
		body = body.attr(unix.IFA_BROADCAST, last.AsSlice())
	}
	return s.ask(unix.RTM_NEWADDR, replace, body.u8(attrAddrProtocol, RouteProtocol), nil)
}

func (k *kernel) performNeighbour(c change) error {
	s, index, err := k.side(c.item)
	if err != nil {
		return err
	}
	a := c.dst.Addr()
	body := neighBody(familyOf(a), index, unix.NUD_PERMANENT, 0).attr(unix.NDA_DST, a.AsSlice())
	if c.op == opRemove {
		return s.ask(unix.RTM_DELNEIGH, 0, body, nil)
	}
	mac, err := net.ParseMAC(c.to.mac)
	if err != nil {
		return err
	}
	return s.ask(unix.RTM_NEWNEIGH, replace, body.attr(unix.NDA_LLADDR, mac).u8(attrNeighProtocol, RouteProtocol), nil)
}

func (k *kernel) performProxy(c change) error {
	a := c.dst.Addr()
	l, err := k.hostLinkNamed(c.link)
	if errors.Is(err, ErrNoLink) && c.op == opRemove {
		return nil
	}
	if err != nil {
		return err
	}
	if c.op == opRemove {
		return k.host.ask(unix.RTM_DELNEIGH, 0, proxyBody(a, l.index), nil)
	}
	return k.host.ask(unix.RTM_NEWNEIGH, replace, proxyBody(a, l.index).u8(attrNeighProtocol, RouteProtocol), nil)
}

func proxyBody(a netip.Addr, index int) message {
	return neighBody(familyOf(a), index, unix.NUD_PERMANENT, unix.NTF_PROXY).attr(unix.NDA_DST, a.AsSlice())
}

// performHostRoute routes an address of the container, in one message from
// whatever it was to whatever it shall be, so that there is no gap.
func (k *kernel) performHostRoute(c change) error {
	if c.op == opRemove {
		return k.host.ask(unix.RTM_DELROUTE, 0, k.hostRoute(c.dst, c.from), nil)
	}
	return k.host.ask(unix.RTM_NEWROUTE, replace, k.hostRoute(c.dst, c.to), nil)
}

func (k *kernel) hostRoute(dst netip.Prefix, v value) message {
	m := unix.RtMsg{
		Family: familyOf(dst.Addr()), Dst_len: uint8(dst.Bits()), Table: mainTable,
		Protocol: RouteProtocol, Type: unix.RTN_UNICAST,
	}
	switch {
	case v.drop:
		m.Type = unix.RTN_BLACKHOLE
	case dst.Addr().Is4():
		m.Scope = unix.RT_SCOPE_LINK
	}
	body := routeBody(m).attr(unix.RTA_DST, dst.Addr().AsSlice())
	if v.device != "" {
		body = body.u32(unix.RTA_OIF, k.pairs[v.device].index)
	}
	return body
}

// performInsideRoute leaves a route alone that the container's admin has put in
// the place of ours.
func (k *kernel) performInsideRoute(c change) error {
	v := c.to
	if c.op == opRemove {
		v = c.from
	}
	end, found := k.ends[v.device]
	switch {
	case !found && c.op == opRemove:
		return nil // it went with its link
	case !found:
		return fmt.Errorf("%w: %s", ErrNoLink, v.device)
	}
	s, index := k.inside, end.index
	m := unix.RtMsg{
		Family: familyOf(c.dst.Addr()), Dst_len: uint8(c.dst.Bits()),
		Protocol: RouteProtocol, Type: unix.RTN_UNICAST,
	}
	if c.table < 256 {
		m.Table = byte(c.table)
	}
	if v.onlink {
		m.Flags = unix.RTNH_F_ONLINK
	}
	if !v.via.IsValid() && c.dst.Addr().Is4() {
		m.Scope = unix.RT_SCOPE_LINK
	}
	body := routeBody(m).u32(unix.RTA_TABLE, c.table).u32(unix.RTA_OIF, index)
	if c.dst.Bits() > 0 {
		body = body.attr(unix.RTA_DST, c.dst.Addr().AsSlice())
	}
	if v.via.IsValid() {
		body = body.attr(unix.RTA_GATEWAY, v.via.AsSlice())
	}
	if c.metric != 0 {
		body = body.u32(unix.RTA_PRIORITY, c.metric)
	}
	switch c.op {
	case opRemove:
		return s.ask(unix.RTM_DELROUTE, 0, body, nil)
	case opAlter:
		return s.ask(unix.RTM_NEWROUTE, replace, body, nil)
	}
	if err := s.ask(unix.RTM_NEWROUTE, create, body, nil); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

func (k *kernel) performRule(c change) error {
	const noDefault = 0 // FRA_SUPPRESS_PREFIXLEN: routes longer than this count
	body := ruleBody(familyOf(c.dst.Addr()), c.dst.Bits(), c.table, unix.FR_ACT_TO_TBL).
		attr(unix.FRA_SRC, c.dst.Addr().AsSlice()).
		u32(unix.FRA_TABLE, c.table).u32(unix.FRA_PRIORITY, c.metric).u8(unix.FRA_PROTOCOL, RouteProtocol)
	if c.table == mainTable {
		body = body.u32(unix.FRA_SUPPRESS_PREFIXLEN, noDefault)
	}
	if c.op == opRemove {
		return k.inside.ask(unix.RTM_DELRULE, 0, body, nil)
	}
	if err := k.inside.ask(unix.RTM_NEWRULE, create, body, nil); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}
