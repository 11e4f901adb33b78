package netns

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frames of ARP (RFC 826) and of IPv6 neighbour discovery (RFC 4861), without
// the Ethernet header, which the kernel adds.

const (
	sizeofARP    = 28
	arpRequest   = 1
	sizeofIPv6   = 40
	sizeofND     = 24 // type, code, checksum, flags, target
	ndOption     = 8  // type, length, hardware address
	ndSolicit    = 135
	ndAdvertise  = 136
	ndTargetMAC  = 2 // target link-layer address (RFC 4861, section 4.6.1)
	naRouter     = 0x80
	naOverride   = 0x20
	icmpv6       = 58
	ndHopLimit   = 255 // proves that no router passed it on
	anyIPv6Bytes = 16
)

var (
	broadcastMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes     = netip.MustParseAddr("ff02::1")
	anyIPv4      = netip.IPv4Unspecified()
	anyIPv6      = netip.IPv6Unspecified()
)

// arpFrame asks who has target. A request from 0.0.0.0 is a probe, one from the
// target itself an announcement (RFC 5227, sections 1.1 and 3).
func arpFrame(mac net.HardwareAddr, sender, target netip.Addr) []byte {
	b := make([]byte, 0, sizeofARP)
	b = binary.BigEndian.AppendUint16(b, 1)      // Ethernet
	b = binary.BigEndian.AppendUint16(b, 0x0800) // IPv4
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, arpRequest)
	b = append(b, mac[:6]...)
	b = append(b, sender.AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(b, target.AsSlice()...)
}

// heard is what a frame says about an address.
type heard struct {
	address netip.Addr
	mac     net.HardwareAddr
}

// readARP returns who says to have an address, or to want to have it: a probe
// of another is a conflict as well (RFC 5227, section 2.1.1).
func readARP(b []byte) (heard, bool) {
	if len(b) < sizeofARP || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return heard{}, false
	}
	mac := net.HardwareAddr(b[8:14:14])
	sender := netip.AddrFrom4([4]byte(b[14:18]))
	if sender != anyIPv4 {
		return heard{sender, mac}, true
	}
	return heard{netip.AddrFrom4([4]byte(b[24:28])), mac}, binary.BigEndian.Uint16(b[6:]) == arpRequest
}

// solicitation asks who has target, as duplicate address detection does: from
// the unspecified address to the target's group (RFC 4862, section 5.4.2).
func solicitation(target netip.Addr) []byte {
	return ndFrame(anyIPv6, solicitedNode(target), ndSolicit, 0, target, nil)
}

// advertisement says unasked that mac has target, in place of what its
// neighbours know (RFC 4861, section 7.2.6).
func advertisement(source, target netip.Addr, mac net.HardwareAddr, router bool) []byte {
	flags := byte(naOverride)
	if router {
		flags |= naRouter
	}
	return ndFrame(source, allNodes, ndAdvertise, flags, target, append([]byte{ndTargetMAC, 1}, mac[:6]...))
}

func ndFrame(source, destination netip.Addr, kind, flags byte, target netip.Addr, option []byte) []byte {
	payload := make([]byte, 8, sizeofND+ndOption)
	payload[0], payload[4] = kind, flags
	payload = append(payload, target.AsSlice()...)
	payload = append(payload, option...)

	b := make([]byte, 8, sizeofIPv6+len(payload))
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = icmpv6, ndHopLimit
	b = append(b, source.AsSlice()...)
	b = append(b, destination.AsSlice()...)
	binary.BigEndian.PutUint16(payload[2:], checksumIPv6(b[8:], payload))
	return append(b, payload...)
}

// checksumIPv6 is the one of RFC 8200, section 8.1, over both addresses, the
// length, the protocol and the payload.
func checksumIPv6(addresses, payload []byte) uint16 {
	sum := uint32(len(payload)) + icmpv6
	for _, part := range [][]byte{addresses, payload} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// readND returns who says to have an address, or to want to have it. from is
// the sender of the frame, for advertisements that do not name one.
func readND(b []byte, from net.HardwareAddr) (heard, bool) {
	if len(b) < sizeofIPv6+sizeofND || b[0]>>4 != 6 || b[6] != icmpv6 || b[7] != ndHopLimit {
		return heard{}, false
	}
	source, _ := netip.AddrFromSlice(b[8:24])
	nd := b[sizeofIPv6:]
	target, _ := netip.AddrFromSlice(nd[8:sizeofND])
	switch nd[0] {
	case ndSolicit:
		return heard{target, from}, source == anyIPv6
	case ndAdvertise:
		if option := nd[sizeofND:]; len(option) >= ndOption && option[0] == ndTargetMAC && option[1] == 1 {
			from = net.HardwareAddr(option[2:8:8])
		}
		return heard{target, from}, true
	}
	return heard{}, false
}

// solicitedNode is the group of RFC 4291, section 2.7.1.
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([anyIPv6Bytes]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// multicastMAC is the one of RFC 2464, section 7.
func multicastMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
