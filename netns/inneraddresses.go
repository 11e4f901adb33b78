package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes and flags that golang.org/x/sys/unix lacks.
const (
	ifaRTPriority = 9 // IFA_RT_PRIORITY of linux/if_addr.h

	// addressFlags are those that an administrator sets; the others are states.
	// IFA_F_NODAD is none of them, as every address is brought back with it: the
	// sockets of a restored process have to be bound at once.
	addressFlags = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MANAGETEMPADDR |
		unix.IFA_F_MCAUTOJOIN | unix.IFA_F_HOMEADDRESS
)

func (in *Inner) readAddresses(t *talk, o ours, links innerLinks) error {
	dumped, err := t.dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, m := range dumped {
		if len(m.data) < unix.SizeofIfAddrmsg {
			return errAttributes
		}
		all, err := parseTLVs(m.data[unix.SizeofIfAddrmsg:])
		if err != nil {
			return err
		}
		a, ok := recordAddress(m.data, all)
		a.Link = links.name[binary.NativeEndian.Uint32(m.data[4:])]
		if !ok || o.address(a, links.mac[a.Link]) {
			continue
		}
		in.Addresses = append(in.Addresses, a)
	}
	return nil
}

// recordAddress says no for what is no usable address: temporary ones, which the
// kernel makes itself, and such that were found to be taken.
func recordAddress(data []byte, all []tlv) (InnerAddress, bool) {
	a := InnerAddress{
		Scope:  data[3],
		Label:  findText(all, unix.IFA_LABEL),
		Metric: findUint32(all, ifaRTPriority),
	}
	flags := uint32(data[2])
	if _, ok := find(all, unix.IFA_FLAGS); ok {
		flags = findUint32(all, unix.IFA_FLAGS)
	}
	a.Flags = flags & addressFlags
	if proto, ok := find(all, attrAddrProtocol); ok && len(proto) == 1 {
		a.Protocol = proto[0]
	}
	other, _ := addressTLV(all, unix.IFA_ADDRESS)
	local, ok := addressTLV(all, unix.IFA_LOCAL)
	if !ok {
		local = other
	}
	if other != local {
		a.Peer = other
	}
	a.Broadcast, _ = addressTLV(all, unix.IFA_BROADCAST)
	a.Address = netip.PrefixFrom(local, int(data[1]))
	if times, ok := find(all, unix.IFA_CACHEINFO); ok && len(times) >= 8 {
		a.Preferred = lifetime(binary.NativeEndian.Uint32(times))
		a.Valid = lifetime(binary.NativeEndian.Uint32(times[4:]))
	}
	temporary := local.Is6() && flags&unix.IFA_F_TEMPORARY != 0
	return a, local.IsValid() && !temporary && flags&unix.IFA_F_DADFAILED == 0
}

func lifetime(seconds uint32) *uint32 {
	if seconds == math.MaxUint32 { // INFINITY_LIFE_TIME of net/addrconf.h
		return nil
	}
	return &seconds
}

func addressTLV(all []tlv, kind uint16) (netip.Addr, bool) {
	b, ok := find(all, kind)
	if !ok {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(b)
}

func (in Inner) addAddresses(t *talk, index map[string]uint32) error {
	var errs []error
	for _, a := range in.Addresses {
		if err := a.add(t, index[a.Link]); err != nil {
			errs = append(errs, fmt.Errorf("add address %s to %s: %w", a.Address, a.Link, err))
		}
	}
	return errors.Join(errs...)
}

func (a InnerAddress) add(t *talk, index uint32) error {
	if index == 0 {
		return ErrNoLink
	}
	addr := a.Address.Addr()
	b := []byte{familyOf(addr), byte(a.Address.Bits()), 0, a.Scope}
	b = binary.NativeEndian.AppendUint32(b, index)
	b = appendTLV(b, unix.IFA_LOCAL, addr.AsSlice())
	if a.Peer.IsValid() {
		b = appendTLV(b, unix.IFA_ADDRESS, a.Peer.AsSlice())
	} else {
		b = appendTLV(b, unix.IFA_ADDRESS, addr.AsSlice())
	}
	if a.Broadcast.IsValid() {
		b = appendTLV(b, unix.IFA_BROADCAST, a.Broadcast.AsSlice())
	}
	if a.Label != "" {
		b = appendTextTLV(b, unix.IFA_LABEL, a.Label)
	}
	flags := a.Flags & addressFlags
	if addr.Is6() {
		flags |= unix.IFA_F_NODAD
	}
	b = appendUint32TLV(b, unix.IFA_FLAGS, flags)
	if a.Metric != 0 {
		b = appendUint32TLV(b, ifaRTPriority, a.Metric)
	}
	if a.Protocol != 0 {
		b = appendTLV(b, attrAddrProtocol, []byte{a.Protocol})
	}
	if a.Valid != nil || a.Preferred != nil {
		times := binary.NativeEndian.AppendUint32(nil, secondsOf(a.Preferred))
		times = binary.NativeEndian.AppendUint32(times, secondsOf(a.Valid))
		b = appendTLV(b, unix.IFA_CACHEINFO, append(times, make([]byte, 8)...))
	}
	return t.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
}

func secondsOf(life *uint32) uint32 {
	if life == nil {
		return math.MaxUint32
	}
	return *life
}

func (in *Inner) readNeighbours(t *talk, o ours, links innerLinks) error {
	for _, proxy := range []bool{false, true} {
		request := make([]byte, unix.SizeofNdMsg)
		if proxy {
			request[10] = unix.NTF_PROXY
		}
		dumped, err := t.dump(unix.RTM_GETNEIGH, request)
		if err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, m := range dumped {
			if len(m.data) < unix.SizeofNdMsg {
				return errAttributes
			}
			all, err := parseTLVs(m.data[unix.SizeofNdMsg:])
			if err != nil {
				return err
			}
			address, ok := addressTLV(all, unix.NDA_DST)
			state := binary.NativeEndian.Uint16(m.data[8:])
			if !ok || !proxy && state != unix.NUD_PERMANENT {
				continue
			}
			n := InnerNeighbour{
				Link:    links.name[binary.NativeEndian.Uint32(m.data[4:])],
				Address: address,
				Proxy:   proxy,
				Flags:   m.data[10] & unix.NTF_ROUTER,
			}
			if mac, ok := find(all, unix.NDA_LLADDR); ok && !proxy {
				n.MAC = mac
			}
			protocol, _ := find(all, attrNeighProtocol)
			if n.Link != "" && !o.neighbour(n, protocol) {
				in.Neighbours = append(in.Neighbours, n)
			}
		}
	}
	return nil
}

func (in Inner) addNeighbours(t *talk, index map[string]uint32) error {
	var errs []error
	for _, n := range in.Neighbours {
		if err := n.add(t, index[n.Link]); err != nil {
			errs = append(errs, fmt.Errorf("add neighbour %s to %s: %w", n.Address, n.Link, err))
		}
	}
	return errors.Join(errs...)
}

func (n InnerNeighbour) add(t *talk, index uint32) error {
	if index == 0 {
		return ErrNoLink
	}
	b := make([]byte, unix.SizeofNdMsg)
	b[0] = familyOf(n.Address)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint16(b[8:], unix.NUD_PERMANENT)
	b[10] = n.Flags & unix.NTF_ROUTER
	if n.Proxy {
		b[10] |= unix.NTF_PROXY
	}
	b = appendTLV(b, unix.NDA_DST, n.Address.AsSlice())
	if len(n.MAC) > 0 {
		b = appendTLV(b, unix.NDA_LLADDR, n.MAC)
	}
	return t.do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
}
