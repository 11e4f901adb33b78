package netns

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// expression is one of a rule, its data unread.
type expression struct {
	name string
	data []tlv
}

func expressionsOf(rule []tlv) ([]expression, error) {
	list, err := nested(rule, nftaExpressions)
	if err != nil {
		return nil, err
	}
	var all []expression
	for _, e := range list {
		parts, err := parseTLVs(e.data)
		if err != nil {
			return nil, err
		}
		data, err := nested(parts, nftaExprData)
		if err != nil {
			return nil, err
		}
		all = append(all, expression{findText(parts, nftaExprName), data})
	}
	return all, nil
}

// withCompat adds to a rule with extensions of iptables (expressions "match"
// and "target") the protocol that it is for. The kernel wants to be told
// (NFTA_RULE_COMPAT), but does not tell; it is what the rule compares the
// packet's protocol with.
func withCompat(rule []tlv) ([]tlv, error) {
	all, err := expressionsOf(rule)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(all, func(e expression) bool { return e.name == "match" || e.name == "target" }) {
		return rule, nil
	}
	const compatProto, compatFlags = 1, 2 // NFTA_RULE_COMPAT_PROTO, _FLAGS
	protocol, inverted := protocolOf(all)
	flags := uint32(0)
	if inverted {
		flags = 2 // NFT_RULE_COMPAT_F_INV
	}
	data := appendBig32TLV(appendBig32TLV(nil, compatProto, protocol), compatFlags, flags)
	return append(slices.Clone(rule), tlv{nftaRuleCompat | unix.NLA_F_NESTED, data}), nil
}

// protocolOf finds the comparison of a register that holds the number of the
// transport protocol: meta l4proto, or the byte in the header of IPv4 or IPv6.
func protocolOf(all []expression) (protocol uint32, inverted bool) {
	const (
		register    = 1    // NFTA_META_DREG, NFTA_PAYLOAD_DREG, NFTA_CMP_SREG
		metaKey     = 2    // NFTA_META_KEY
		base        = 2    // NFTA_PAYLOAD_BASE
		offset      = 3    // NFTA_PAYLOAD_OFFSET
		length      = 4    // NFTA_PAYLOAD_LEN
		op, data    = 2, 3 // NFTA_CMP_OP, NFTA_CMP_DATA
		hostNetwork = unix.NFT_PAYLOAD_NETWORK_HEADER
	)
	holds := make(map[uint32]bool)
	for _, e := range all {
		reg := findBig32(e.data, register)
		switch e.name {
		case "meta":
			holds[reg] = findBig32(e.data, metaKey) == unix.NFT_META_L4PROTO
		case "payload":
			at := findBig32(e.data, offset)
			holds[reg] = findBig32(e.data, base) == hostNetwork && findBig32(e.data, length) == 1 && (at == 9 || at == 6)
		case "cmp":
			value, err := nested(e.data, data)
			if err != nil || !holds[reg] {
				continue
			}
			if b, _ := find(value, nftaDataValue); len(b) >= 1 {
				return uint32(b[0]), findBig32(e.data, op) == unix.NFT_CMP_NEQ
			}
		}
	}
	return 0, false
}

// missOfRules names rules that need what is not recorded.
func (in *Inner) missOfRules() error {
	for _, f := range in.Filter {
		if f.Kind != unix.NFT_MSG_NEWRULE {
			continue
		}
		rule, err := parseTLVs(f.Data)
		if err != nil {
			return err
		}
		all, err := expressionsOf(rule)
		if err != nil {
			return fmt.Errorf("%w: %w", errFilterRule, err)
		}
		for _, e := range all {
			// NFTA_MATCH_NAME and NFTA_TARGET_NAME are both 1.
			if extension := findText(e.data, 1); e.name == "match" && extension == "set" || e.name == "target" && extension == "SET" {
				in.miss("a set of ipset, which a rule of table %s uses", findText(rule, nftaTable))
			}
		}
	}
	return nil
}

// missOthers names what other parts of the kernel have for this namespace.
func (in *Inner) missOthers(route *talk, links innerLinks) error {
	dumped, err := route.dump(unix.RTM_GETQDISC, make([]byte, sizeofTcMsg))
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, m := range dumped {
		if len(m.data) < sizeofTcMsg {
			return errAttributes
		}
		all, err := parseTLVs(m.data[sizeofTcMsg:])
		if err != nil {
			return err
		}
		// Those that a link has by itself have no number.
		if handle := binary.NativeEndian.Uint32(m.data[8:]); handle != 0 {
			name := links.name[binary.NativeEndian.Uint32(m.data[4:])]
			in.miss("queueing discipline %s of link %s", findText(all, unix.TCA_KIND), name)
		}
	}
	hops, err := route.dump(unix.RTM_GETNEXTHOP, make([]byte, unix.SizeofNhmsg))
	if err != nil {
		return fmt.Errorf("list next hops: %w", err)
	}
	if len(hops) > 0 {
		in.miss("%d next hop objects; the routes over them come back without", len(hops))
	}
	return nil
}

const sizeofTcMsg = 20 // struct tcmsg of linux/rtnetlink.h

// missIPsec names states and policies of IPsec.
func (in *Inner) missIPsec(t *talk) error {
	const getStates, getPolicies = 0x12, 0x15 // XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY of linux/xfrm.h
	if t == nil {
		return nil
	}
	for _, part := range []struct {
		get  uint16
		what string
	}{{getStates, "states"}, {getPolicies, "policies"}} {
		dumped, err := t.dump(part.get, nil)
		if err != nil {
			return fmt.Errorf("list IPsec %s: %w", part.what, err)
		}
		if len(dumped) > 0 {
			in.miss("%d %s of IPsec", len(dumped), part.what)
		}
	}
	return nil
}
