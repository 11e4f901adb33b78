package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// linkKinds are the kinds of links that are made again, each with those of its
// attributes that can be set (linux/if_link.h). None of them can name another
// namespace. The list of veth is empty: its one attribute is the other end.
var linkKinds = map[string][]uint16{
	"dummy":   nil,
	"ifb":     nil,
	"veth":    nil,
	"macvlan": {1, 2},          // IFLA_MACVLAN_MODE, FLAGS
	"vlan":    {1, 2, 3, 4, 5}, // IFLA_VLAN_ID, FLAGS, EGRESS_QOS, INGRESS_QOS, PROTOCOL
	"bridge": {
		1, 2, 3, 4, 5, 6, 7, 8, 9, // IFLA_BR_FORWARD_DELAY to GROUP_FWD_MASK
		22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, // MCAST_ROUTER to MCAST_STARTUP_QUERY_INTVL
		36, 37, 38, 39, // NF_CALL_IPTABLES to VLAN_DEFAULT_PVID
		41, 42, 43, 44, 45, 46, // VLAN_STATS_ENABLED to MULTI_BOOLOPT
	},
}

// portAttributes are the settings of a bridge's port that can be set:
// IFLA_BRPORT_PRIORITY to PROXYARP_WIFI, MULTICAST_ROUTER, MCAST_FLOOD to
// ISOLATED, LOCKED.
var portAttributes = []uint16{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 25, 27, 28, 29, 30, 31, 32, 33, 39}

const (
	vlanFiltering = 7  // IFLA_BR_VLAN_FILTERING
	multiBoolopt  = 46 // IFLA_BR_MULTI_BOOLOPT

	// settableFlags are those that ip-link(8) sets.
	settableFlags = unix.IFF_UP | unix.IFF_NOARP | unix.IFF_PROMISC | unix.IFF_ALLMULTI |
		unix.IFF_MULTICAST | unix.IFF_DYNAMIC | unix.IFF_DEBUG
)

// innerLinks are the links of one namespace while they are read.
type innerLinks struct {
	name map[uint32]string // by index
	mac  map[string][]byte
	// fresh are the names of the links that the administrator made.
	fresh []string
}

// readLinks returns the names of all links, and records those that are not as
// the host made them. present are those that every new namespace has.
func (in *Inner) readLinks(t *talk, o ours, present map[string]bool) (innerLinks, error) {
	links := innerLinks{make(map[uint32]string), make(map[string][]byte), nil}
	dumped, err := t.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return links, fmt.Errorf("list links: %w", err)
	}
	parsed := make([][]tlv, len(dumped))
	for n, m := range dumped {
		if len(m.data) < unix.SizeofIfInfomsg {
			return links, errAttributes
		}
		if parsed[n], err = parseTLVs(m.data[unix.SizeofIfInfomsg:]); err != nil {
			return links, err
		}
		name := findText(parsed[n], unix.IFLA_IFNAME)
		links.name[binary.NativeEndian.Uint32(m.data[4:])] = name
		links.mac[name], _ = find(parsed[n], unix.IFLA_ADDRESS)
	}
	seen := make(map[string]bool)
	for n, m := range dumped {
		l, err := links.read(m.data, parsed[n])
		if err != nil {
			return links, err
		}
		seen[l.Name] = true
		in.addLink(l, parsed[n], &links, o, present)
	}
	for _, name := range slices.Sorted(maps.Keys(o.interfaces)) {
		if !seen[name] {
			in.miss("interface %s, which was renamed or taken away", name)
		}
	}
	return links, nil
}

// read decodes a link with all its values.
func (links innerLinks) read(data []byte, all []tlv) (InnerLink, error) {
	flags := binary.NativeEndian.Uint32(data[8:]) & settableFlags
	queue := int32(findUint32(all, unix.IFLA_TXQLEN))
	mac, _ := find(all, unix.IFLA_ADDRESS)
	l := InnerLink{
		Name:    findText(all, unix.IFLA_IFNAME),
		MAC:     mac,
		MTU:     findUint32(all, unix.IFLA_MTU),
		TxQueue: &queue,
		Flags:   &flags,
		Alias:   findText(all, unix.IFLA_IFALIAS),
		Group:   findUint32(all, unix.IFLA_GROUP),
		Master:  links.name[findUint32(all, unix.IFLA_MASTER)],
	}
	info, err := nested(all, unix.IFLA_LINKINFO)
	if err != nil {
		return l, err
	}
	l.Kind = findText(info, unix.IFLA_INFO_KIND)
	if _, elsewhere := find(all, unix.IFLA_LINK_NETNSID); !elsewhere {
		l.Parent = links.name[findUint32(all, unix.IFLA_LINK)]
	}
	own, err := nested(info, unix.IFLA_INFO_DATA)
	if err != nil {
		return l, err
	}
	if l.Kind == "bridge" {
		own = switchedOn(own)
	}
	l.Data = keep(own, linkKinds[l.Kind]...)
	if l.Master == "" || findText(info, unix.IFLA_INFO_SLAVE_KIND) != "bridge" {
		return l, nil
	}
	port, err := nested(info, unix.IFLA_INFO_SLAVE_DATA)
	l.Port = keep(port, portAttributes...)
	return l, err
}

// switchedOn leaves of some of a bridge's switches those that are on: a new
// bridge has none of them on, and a kernel without VLANs refuses to turn theirs
// off.
func switchedOn(all []tlv) (out []tlv) {
	for _, a := range all {
		switch kind := a.kind & attributeKind; {
		case kind == vlanFiltering && bytes.Equal(a.data, []byte{0}):
			continue
		case kind == multiBoolopt && len(a.data) == 8:
			// struct br_boolopt_multi: values, and which of them are meant.
			on := a.data[:4]
			if binary.NativeEndian.Uint32(on) == 0 {
				continue
			}
			a.data = append(slices.Clone(on), on...)
		}
		out = append(out, a)
	}
	return out
}

func (in *Inner) addLink(l InnerLink, all []tlv, links *innerLinks, o ours, present map[string]bool) {
	if err := checkLinkName(l.Name); err != nil {
		in.miss("a link: %v", err)
		return
	}
	if names, err := nested(all, unix.IFLA_PROP_LIST); err != nil || len(names) > 0 {
		in.miss("other names of link %s", l.Name)
	}
	_, host := o.interfaces[l.Name]
	if host || present[l.Name] {
		if l.Master == "" {
			l.Port = nil
		}
		l.Kind, l.Data, l.Parent, l.Peer = "", nil, "", ""
		if host || l.Name == "lo" {
			l = o.link(l)
		} else {
			return // one that the kernel makes in every namespace, such as sit0
		}
		if !unchanged(l) {
			in.Links = append(in.Links, l)
		}
		return
	}
	switch _, known := linkKinds[l.Kind]; {
	case l.Kind == "":
		in.miss("link %s, a device of the host", l.Name)
		return
	case !known:
		in.miss("link %s of the kind %s", l.Name, l.Kind)
		return
	case l.Kind == "veth" && l.Parent == "":
		in.miss("link %s, the other end of which is in another namespace", l.Name)
		return
	case l.Kind == "veth":
		l.Peer, l.Parent = l.Parent, ""
	}
	if l.Kind == "bridge" {
		in.missOfBridge(l)
	}
	links.fresh = append(links.fresh, l.Name)
	in.Links = append(in.Links, l)
}

// missOfBridge names what a bridge has beyond its attributes.
func (in *Inner) missOfBridge(l InnerLink) {
	all, err := parseTLVs(l.Data)
	if err != nil {
		return // keep wrote them
	}
	if on, _ := find(all, vlanFiltering); bytes.Equal(on, []byte{1}) {
		in.miss("VLANs of the ports of bridge %s", l.Name)
	}
}

func unchanged(l InnerLink) bool {
	return l.Master == "" && l.MAC == nil && l.MTU == 0 && l.TxQueue == nil &&
		l.Flags == nil && l.Alias == "" && l.Group == 0
}

// makeLinks makes the links that are not there, all down.
func (in Inner) makeLinks(t *talk) error {
	index, err := linkIndexes(t)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(in.Links), func(l InnerLink) bool { return l.Kind == "" })
	for len(left) > 0 {
		var waiting []InnerLink
		for _, l := range left {
			if index[l.Name] != 0 {
				continue // made before, or with its peer
			}
			if l.Parent != "" && index[l.Parent] == 0 {
				waiting = append(waiting, l)
				continue
			}
			if err := t.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.creation(index)); err != nil {
				return fmt.Errorf("make link %s of the kind %s: %w", l.Name, l.Kind, err)
			}
			if index, err = linkIndexes(t); err != nil {
				return err
			}
		}
		if len(waiting) == len(left) {
			return fmt.Errorf("make link %s: the link %s below it is missing", waiting[0].Name, waiting[0].Parent)
		}
		left = waiting
	}
	return nil
}

// creation is the request that makes a link.
func (l InnerLink) creation(index map[string]uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	if l.Kind == "veth" {
		// The kernel makes the other end first, so that is the one listed first.
		const vethPeer = 1 // VETH_INFO_PEER of linux/veth.h
		other := appendTLV(nil, vethPeer, appendTextTLV(slices.Clone(b), unix.IFLA_IFNAME, l.Name))
		return appendTLV(appendTextTLV(b, unix.IFLA_IFNAME, l.Peer), unix.IFLA_LINKINFO|unix.NLA_F_NESTED, linkInfoTLV(l.Kind, other))
	}
	b = appendTextTLV(b, unix.IFLA_IFNAME, l.Name)
	if l.Parent != "" {
		b = appendUint32TLV(b, unix.IFLA_LINK, index[l.Parent])
	}
	if len(l.MAC) > 0 {
		b = appendTLV(b, unix.IFLA_ADDRESS, l.MAC)
	}
	if l.MTU != 0 {
		b = appendUint32TLV(b, unix.IFLA_MTU, l.MTU)
	}
	return appendTLV(b, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, linkInfoTLV(l.Kind, l.Data))
}

func linkInfoTLV(kind string, data []byte) []byte {
	info := appendTextTLV(nil, unix.IFLA_INFO_KIND, kind)
	if len(data) == 0 {
		return info
	}
	return appendTLV(info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
}

// setLinks gives all links their settings. Ports join their bridges before any
// link comes up.
func (in Inner) setLinks(t *talk) error {
	index, err := linkIndexes(t)
	if err != nil {
		return err
	}
	var errs []error
	for _, up := range []bool{false, true} {
		for _, l := range in.Links {
			if index[l.Name] == 0 {
				errs = append(errs, fmt.Errorf("set link %s: %w", l.Name, ErrNoLink))
				continue
			}
			for _, request := range l.settings(index, up) {
				if err := t.do(unix.RTM_NEWLINK, 0, request); err != nil {
					errs = append(errs, fmt.Errorf("set link %s: %w", l.Name, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (l InnerLink) settings(index map[string]uint32, up bool) (requests [][]byte) {
	start := func(flags, change uint32) []byte {
		b := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(b[4:], index[l.Name])
		binary.NativeEndian.PutUint32(b[8:], flags)
		binary.NativeEndian.PutUint32(b[12:], change)
		return b
	}
	if up {
		if l.Flags == nil {
			return nil
		}
		requests = append(requests, start(*l.Flags, settableFlags))
		if port, err := parseTLVs(l.Port); err == nil && l.Master != "" {
			info := appendTextTLV(nil, unix.IFLA_INFO_SLAVE_KIND, "bridge")
			info = appendTLV(info, unix.IFLA_INFO_SLAVE_DATA|unix.NLA_F_NESTED, keep(port, portAttributes...))
			requests = append(requests, appendTLV(start(0, 0), unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info))
		}
		return requests
	}
	b := start(0, 0)
	if len(l.MAC) > 0 {
		b = appendTLV(b, unix.IFLA_ADDRESS, l.MAC)
	}
	if l.TxQueue != nil {
		b = appendUint32TLV(b, unix.IFLA_TXQLEN, uint32(*l.TxQueue))
	}
	if l.Alias != "" {
		b = appendTLV(b, unix.IFLA_IFALIAS, []byte(l.Alias))
	}
	if l.Group != 0 {
		b = appendUint32TLV(b, unix.IFLA_GROUP, l.Group)
	}
	if l.Master != "" {
		b = appendUint32TLV(b, unix.IFLA_MASTER, index[l.Master])
	}
	requests = append(requests, b)
	if l.MTU != 0 { // after the master, which may have set it
		requests = append(requests, appendUint32TLV(start(0, 0), unix.IFLA_MTU, l.MTU))
	}
	return requests
}

// linkIndexes are the links of the namespace by their names.
func linkIndexes(t *talk) (map[string]uint32, error) {
	index, _, err := linksByName(t)
	return index, err
}

// linksByName returns the numbers and the MTUs of the namespace's links.
func linksByName(t *talk) (index, mtu map[string]uint32, err error) {
	dumped, err := t.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	index, mtu = make(map[string]uint32, len(dumped)), make(map[string]uint32, len(dumped))
	for _, m := range dumped {
		if len(m.data) < unix.SizeofIfInfomsg {
			return nil, nil, errAttributes
		}
		all, err := parseTLVs(m.data[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, nil, err
		}
		name := findText(all, unix.IFLA_IFNAME)
		index[name], mtu[name] = binary.NativeEndian.Uint32(m.data[4:]), findUint32(all, unix.IFLA_MTU)
	}
	return index, mtu, nil
}
