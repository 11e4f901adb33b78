package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys does not name.
const (
	attrAddrProtocol  = 11 // IFA_PROTO, Linux 5.18
	attrNeighProtocol = 12 // NDA_PROTOCOL, Linux 4.20
	attrNeighIndex    = 8  // NDA_IFINDEX
	skipStatistics    = 8  // RTEXT_FILTER_SKIP_STATS
)

// linkInfo is what is asked of a link.
type linkInfo struct {
	index  int
	name   string
	kind   string // veth, bridge; "" for real ones
	alias  string
	mac    string
	mtu    int
	up     bool
	ready  bool // can send (IF_OPER_UP)
	asks   bool // Ethernet, with neighbours that are asked for (ARPHRD_ETHER without IFF_NOARP)
	master int
	peer   int // the other end's index,
	peerNS int // in this namespace; -1 when it is the same
	closed bool
	queue  string // kind of its queueing discipline
}

func readLink(b []byte) linkInfo {
	l := linkInfo{peerNS: -1}
	if len(b) < unix.SizeofIfInfomsg {
		return l
	}
	l.index = int(int32(native.Uint32(b[4:])))
	flags := native.Uint32(b[8:])
	l.up = flags&unix.IFF_UP != 0
	l.asks = native.Uint16(b[2:]) == unix.ARPHRD_ETHER && flags&unix.IFF_NOARP == 0
	eachAttr(b[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_IFALIAS:
			l.alias = text(v)
		case unix.IFLA_ADDRESS:
			l.mac = net.HardwareAddr(v).String()
		case unix.IFLA_MTU:
			l.mtu = number(v)
		case unix.IFLA_MASTER:
			l.master = number(v)
		case unix.IFLA_LINK:
			l.peer = number(v)
		case unix.IFLA_LINK_NETNSID:
			l.peerNS = number(v)
		case unix.IFLA_OPERSTATE:
			l.ready = len(v) == 1 && v[0] == operUp
		case unix.IFLA_QDISC:
			l.queue = text(v)
		case unix.IFLA_LINKINFO:
			l.readInfo(v)
		}
	})
	return l
}

const (
	operUp       = 6 // IF_OPER_UP, RFC 2863
	portDisabled = 0 // BR_STATE_DISABLED
	portForwards = 3 // BR_STATE_FORWARDING
)

func (l *linkInfo) readInfo(b []byte) {
	eachAttr(b, func(typ uint16, v []byte) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.kind = text(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			eachAttr(v, func(typ uint16, v []byte) {
				if typ == unix.IFLA_BRPORT_STATE && len(v) == 1 {
					// A port that is down is disabled too.
					l.closed = l.up && v[0] == portDisabled
				}
			})
		}
	})
}

func number(v []byte) int {
	if len(v) < 4 {
		return 0
	}
	return int(int32(native.Uint32(v)))
}

// linkNamed finds a link; found is false when there is none.
func (s *socket) linkNamed(name string) (l linkInfo, found bool, err error) {
	return s.link(linkBody(unix.AF_UNSPEC, 0, 0, 0).str(unix.IFLA_IFNAME, name))
}

func (s *socket) linkAt(index int) (l linkInfo, found bool, err error) {
	return s.link(linkBody(unix.AF_UNSPEC, index, 0, 0))
}

func (s *socket) link(body message) (l linkInfo, found bool, err error) {
	err = s.ask(unix.RTM_GETLINK, 0, body.u32(unix.IFLA_EXT_MASK, skipStatistics), func(b []byte) { l, found = readLink(b), true })
	if errors.Is(err, unix.ENODEV) {
		return l, false, nil
	}
	if err != nil {
		return l, false, fmt.Errorf("find link: %w", err)
	}
	return l, found, nil
}

// links lists the links that match a filter, which is part of the request.
func (s *socket) links(filter message) ([]linkInfo, error) {
	body := linkBody(unix.AF_UNSPEC, 0, 0, 0).u32(unix.IFLA_EXT_MASK, skipStatistics)
	var all []linkInfo
	err := s.ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, append(body, filter...), func(b []byte) { all = append(all, readLink(b)) })
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return all, nil
}

// ofKind lists the links of one kind, portsOf those of one bridge.
func ofKind(kind string) message {
	return message(nil).nest(unix.IFLA_LINKINFO, message(nil).str(unix.IFLA_INFO_KIND, kind))
}

func portsOf(bridge int) message { return message(nil).u32(unix.IFLA_MASTER, bridge) }

// addrInfo is an address of a link.
type addrInfo struct {
	prefix    netip.Prefix
	index     int
	protocol  byte
	tentative bool // not yet the host's
}

// addrs lists the addresses of one IP version (or of all, with AF_UNSPEC), of
// one link or of all, with 0.
func (s *socket) addrs(family byte, index int) ([]addrInfo, error) {
	var all []addrInfo
	err := s.ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, addrBody(family, 0, 0, 0, index), func(b []byte) {
		if a, ok := readAddr(b); ok && (index == 0 || a.index == index) {
			all = append(all, a)
		}
	})
	if index != 0 && isAbsent(err) {
		return nil, nil // the link has just gone, and they with it
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return all, nil
}

func readAddr(b []byte) (a addrInfo, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, false
	}
	bits := int(b[1])
	a.index = number(b[4:])
	a.tentative = b[2]&unix.IFA_F_TENTATIVE != 0
	var local, addr netip.Addr
	eachAttr(b[unix.SizeofIfAddrmsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		case attrAddrProtocol:
			if len(v) == 1 {
				a.protocol = v[0]
			}
		}
	})
	if !local.IsValid() {
		local = addr
	}
	a.prefix = netip.PrefixFrom(local, bits)
	return a, a.prefix.IsValid()
}

// routeInfo is a route.
type routeInfo struct {
	dst      netip.Prefix
	index    int
	via      netip.Addr
	table    int
	metric   int
	protocol byte
	typ      byte
	onlink   bool
}

// routes lists the routes of this package, of one IP version, that lead to a link
// (or anywhere, with 0).
func (s *socket) routes(family byte, index int) ([]routeInfo, error) {
	body := routeBody(unix.RtMsg{Family: family, Protocol: RouteProtocol})
	if index != 0 {
		body = body.u32(unix.RTA_OIF, index)
	}
	var all []routeInfo
	err := s.ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, body, func(b []byte) {
		r, ok := readRoute(b)
		if ok && r.protocol == RouteProtocol && (index == 0 || r.index == index) {
			all = append(all, r)
		}
	})
	if index != 0 && isAbsent(err) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return all, nil
}

func readRoute(b []byte) (r routeInfo, ok bool) {
	if len(b) < unix.SizeofRtMsg {
		return r, false
	}
	addr := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	bits := int(b[1])
	r.table, r.protocol, r.typ = int(b[4]), b[5], b[7]
	r.onlink = native.Uint32(b[8:])&unix.RTNH_F_ONLINK != 0
	eachAttr(b[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.index = number(v)
		case unix.RTA_GATEWAY:
			r.via, _ = netip.AddrFromSlice(v)
		case unix.RTA_TABLE:
			r.table = number(v)
		case unix.RTA_PRIORITY:
			r.metric = number(v)
		case unix.RTA_MULTIPATH:
			if r.index == 0 && len(v) >= unix.SizeofRtNexthop {
				r.index = number(v[4:])
			}
		}
	})
	r.dst = netip.PrefixFrom(addr, bits)
	return r, r.dst.IsValid()
}

// neighbours lists the permanent neighbours on a link.
func (s *socket) neighbours(index int) (map[netip.Addr]string, error) {
	all := map[netip.Addr]string{}
	body := neighBody(unix.AF_UNSPEC, 0, 0, 0).u32(attrNeighIndex, index)
	err := s.ask(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, body, func(b []byte) {
		if len(b) < unix.SizeofNdMsg || number(b[4:]) != index || native.Uint16(b[8:])&unix.NUD_PERMANENT == 0 {
			return
		}
		if n := readNeighbour(b); n.addr.IsValid() {
			all[n.addr] = n.mac
		}
	})
	if isAbsent(err) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	return all, nil
}

type neighbourInfo struct {
	addr     netip.Addr
	index    int
	mac      string
	protocol byte
}

func readNeighbour(b []byte) (n neighbourInfo) {
	n.index = number(b[4:])
	eachAttr(b[unix.SizeofNdMsg:], func(typ uint16, v []byte) {
		switch typ {
		case unix.NDA_DST:
			n.addr, _ = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			n.mac = net.HardwareAddr(v).String()
		case attrNeighProtocol:
			if len(v) == 1 {
				n.protocol = v[0]
			}
		}
	})
	return n
}

// proxied says whether the host answers for an address on a link, and whether
// that was set up here.
func (s *socket) proxied(a netip.Addr, index int) (exists, ours bool, err error) {
	body := neighBody(familyOf(a), index, 0, unix.NTF_PROXY).attr(unix.NDA_DST, a.AsSlice())
	err = s.ask(unix.RTM_GETNEIGH, 0, body, func(b []byte) {
		if len(b) >= unix.SizeofNdMsg {
			exists, ours = true, readNeighbour(b).protocol == RouteProtocol
		}
	})
	if isAbsent(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look up proxy entry %s: %w", a, err)
	}
	return exists, ours, nil
}

// proxies lists the proxy entries that were set up here.
func (s *socket) proxies() ([]neighbourInfo, error) {
	return s.proxiesThat(func(n neighbourInfo) bool { return n.protocol == RouteProtocol })
}

func (s *socket) proxiesThat(count func(neighbourInfo) bool) ([]neighbourInfo, error) {
	var all []neighbourInfo
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := s.ask(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, neighBody(family, 0, 0, unix.NTF_PROXY), func(b []byte) {
			if len(b) < unix.SizeofNdMsg {
				return
			}
			if n := readNeighbour(b); count(n) {
				all = append(all, n)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list proxy entries: %w", err)
		}
	}
	return all, nil
}

// ruleInfo is a rule of policy routing.
type ruleInfo struct {
	source          netip.Prefix
	table, priority int
}

// rules lists the rules of this package.
func (s *socket) rules() ([]ruleInfo, error) {
	var all []ruleInfo
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := s.ask(unix.RTM_GETRULE, unix.NLM_F_DUMP, ruleBody(family, 0, 0, 0), func(b []byte) {
			if r, ours := readRule(b); ours {
				all = append(all, r)
			}
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list rules: %w", err)
		}
	}
	return all, nil
}

func readRule(b []byte) (r ruleInfo, ours bool) {
	if len(b) < 12 {
		return r, false
	}
	bits := int(b[2])
	r.table = int(b[4])
	eachAttr(b[12:], func(typ uint16, v []byte) {
		switch typ {
		case unix.FRA_SRC:
			a, _ := netip.AddrFromSlice(v)
			r.source = netip.PrefixFrom(a, bits)
		case unix.FRA_TABLE:
			r.table = number(v)
		case unix.FRA_PRIORITY:
			r.priority = number(v)
		case unix.FRA_PROTOCOL:
			ours = len(v) == 1 && v[0] == RouteProtocol
		}
	})
	return r, ours
}

// namespaceID is the number by which the kernel names the namespace behind a
// descriptor in this one, -1 when no link leads there.
func (s *socket) namespaceID(fd int) (int, error) {
	const netnsaID, netnsaFD = 1, 3 // NETNSA_NSID, NETNSA_FD
	id := -1
	err := s.ask(unix.RTM_GETNSID, 0, make(message, 4, 16).u32(netnsaFD, fd), func(b []byte) {
		if len(b) < 4 {
			return
		}
		eachAttr(b[4:], func(typ uint16, v []byte) {
			if typ == netnsaID {
				id = number(v)
			}
		})
	})
	if err != nil {
		return -1, fmt.Errorf("identify namespace: %w", err)
	}
	return id, nil
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
