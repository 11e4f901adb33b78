package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The packet filter is recorded as the kernel lists it, expressions unread, and
// replayed as one transaction. Where listing and making differ (numbers the
// kernel gives, anonymous sets and chains, the order of the elements of an
// interval set, what iptables' extensions are told of their rule) is here and
// in innerfilterrule.go.

// Attributes of linux/netfilter/nf_tables.h.
const (
	nftaTable       = 1 // of every message: the table's name
	nftaName        = 2 // of sets and objects, NFTA_SET_NAME, NFTA_OBJ_NAME
	nftaTableFlags  = 2
	nftaChainName   = 3
	nftaChainFlags  = 10
	nftaSetID       = 10
	nftaElementSet  = 2 // NFTA_SET_ELEM_LIST_SET
	nftaElements    = 3
	nftaElementKey  = 1
	nftaElementFlag = 3
	nftaListElement = 1
	nftaDataValue   = 1
	nftaRuleChain   = 2
	nftaExpressions = 4
	nftaRuleCompat  = 5
	nftaExprName    = 1
	nftaExprData    = 2

	nftTableOwned      = 2 | 4 // NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST
	nftChainBinding    = 4     // NFT_CHAIN_BINDING
	nftElementEnd      = 1     // NFT_SET_ELEM_INTERVAL_END
	sizeofNfgenmsg     = 4
	maxElementsMessage = 32 << 10 // bytes; a list is one attribute, of 64 KiB at most
)

// filterAttributes are those of each kind of message that can be set. What is
// left out are handles, counts of users, numbers within a transaction.
var filterAttributes = map[uint8][]uint16{
	unix.NFT_MSG_NEWTABLE:     {1, 2, 6},
	unix.NFT_MSG_NEWCHAIN:     {1, 3, 4, 5, 7, 8, 10, 12},
	unix.NFT_MSG_NEWSET:       {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18},
	unix.NFT_MSG_NEWOBJ:       {1, 2, 3, 4, 8},
	unix.NFT_MSG_NEWFLOWTABLE: {1, 2, 3, 7},
	unix.NFT_MSG_NEWSETELEM:   {1, 2, 3},
	unix.NFT_MSG_NEWRULE:      {1, 2, 4, 5, 7},
}

func (f InnerFilter) check() error {
	allowed, ok := filterAttributes[f.Kind]
	if !ok {
		return fmt.Errorf("packet filter message of type %d", f.Kind)
	}
	return checkAttributes(f.Data, allowed)
}

// table is what belongs together.
type filterTable struct {
	family uint8
	name   string
}

func (in *Inner) readFilter(t *talk) error {
	listed, err := listFilter(t, unix.NFT_MSG_GETTABLE, nil)
	if err != nil {
		return err
	}
	taken := make(map[filterTable]bool)
	var tables []InnerFilter
	for _, f := range listed {
		all, err := parseTLVs(f.Data)
		if err != nil {
			return err
		}
		of := filterTable{f.Family, findText(all, nftaTable)}
		if of.family == unix.NFPROTO_INET && strings.HasPrefix(of.name, lockTablePrefix) {
			continue
		}
		if findBig32(all, nftaTableFlags)&nftTableOwned != 0 {
			in.miss("packet filter table %s, which belongs to a running program", of.name)
			continue
		}
		taken[of] = true
		tables = append(tables, f.cleaned(all))
	}
	if len(tables) == 0 {
		return nil // the usual case costs one question
	}
	parts, err := readTables(t, taken)
	if err != nil {
		return err
	}
	in.Filter = append(tables, parts...)
	return in.missOfRules()
}

// readTables returns what is in the tables, in the order in which it is made.
func readTables(t *talk, taken map[filterTable]bool) ([]InnerFilter, error) {
	var parts []InnerFilter
	binding := make(map[string]int) // bound chains, with their place
	for _, get := range []uint8{
		unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETOBJ, unix.NFT_MSG_GETFLOWTABLE, unix.NFT_MSG_GETSET, unix.NFT_MSG_GETRULE,
	} {
		listed, err := listFilter(t, get, nil)
		if err != nil {
			return nil, err
		}
		var some []InnerFilter
		for _, f := range listed {
			all, err := parseTLVs(f.Data)
			if err != nil {
				return nil, err
			}
			if !taken[filterTable{f.Family, findText(all, nftaTable)}] {
				continue
			}
			if get == unix.NFT_MSG_GETCHAIN && findBig32(all, nftaChainFlags)&nftChainBinding != 0 {
				binding[chainKey(f.Family, all, nftaChainName)] = len(binding) + 1
			}
			if get == unix.NFT_MSG_GETRULE {
				if all, err = withCompat(all); err != nil {
					return nil, err
				}
			}
			some = append(some, f.cleaned(all))
		}
		switch get {
		case unix.NFT_MSG_GETSET:
			elements, err := readElements(t, some)
			if err != nil {
				return nil, err
			}
			some = append(some, elements...)
		case unix.NFT_MSG_GETRULE:
			boundFirst(some, binding)
		}
		parts = append(parts, some...)
	}
	return parts, nil
}

func chainKey(family uint8, all []tlv, kind uint16) string {
	return fmt.Sprint(family, " ", findText(all, nftaTable), " ", findText(all, kind))
}

// boundFirst puts the rules of anonymous chains before those that lead there: a
// chain that is bound takes no more rules. Of nested ones the inner is the one
// made later.
func boundFirst(rules []InnerFilter, binding map[string]int) {
	if len(binding) == 0 {
		return
	}
	place := make([]int, 0, len(rules))
	of := make(map[int]InnerFilter, len(rules))
	rank := make(map[int]int, len(rules))
	for i, f := range rules {
		all, err := parseTLVs(f.Data)
		if err == nil {
			rank[i] = -binding[chainKey(f.Family, all, nftaRuleChain)]
		}
		place, of[i] = append(place, i), f
	}
	slices.SortStableFunc(place, func(a, b int) int { return rank[a] - rank[b] })
	for i, p := range place {
		rules[i] = of[p]
	}
}

func (f InnerFilter) cleaned(all []tlv) InnerFilter {
	f.Data = keep(all, filterAttributes[f.Kind]...)
	return f
}

// listFilter lists objects of all families, or what the request names.
func listFilter(t *talk, get uint8, f *InnerFilter) ([]InnerFilter, error) {
	request := make([]byte, sizeofNfgenmsg)
	if f != nil {
		request[0] = f.Family
		request = append(request, f.Data...)
	}
	dumped, err := t.dump(filterKind(get), request)
	if err != nil {
		return nil, fmt.Errorf("list the packet filter: %w", err)
	}
	listed := make([]InnerFilter, 0, len(dumped))
	for _, m := range dumped {
		if len(m.data) < sizeofNfgenmsg {
			return nil, errAttributes
		}
		listed = append(listed, InnerFilter{uint8(m.kind), m.data[0], m.data[sizeofNfgenmsg:]})
	}
	return listed, nil
}

func filterKind(kind uint8) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(kind) }

// readElements lists the elements of each set.
func readElements(t *talk, sets []InnerFilter) ([]InnerFilter, error) {
	var messages []InnerFilter
	size := 0
	for _, set := range sets {
		all, err := parseTLVs(set.Data)
		if err != nil {
			return nil, err
		}
		head := appendTextTLV(nil, nftaTable, findText(all, nftaTable))
		head = appendTextTLV(head, nftaElementSet, findText(all, nftaName))
		listed, err := listFilter(t, unix.NFT_MSG_GETSETELEM, &InnerFilter{Family: set.Family, Data: head})
		if err != nil {
			return nil, err
		}
		var elements []tlv
		for _, f := range listed {
			part, err := parseTLVs(f.Data)
			if err != nil {
				return nil, err
			}
			some, err := nested(part, nftaElements)
			if err != nil {
				return nil, err
			}
			elements = append(elements, some...)
			size += len(f.Data)
		}
		if size > maxInnerBytes { // before the next set takes memory
			return nil, ErrInnerSize
		}
		if err := sortElements(elements); err != nil {
			return nil, err
		}
		messages = append(messages, elementMessages(set.Family, head, elements)...)
	}
	return messages, nil
}

// sortElements orders elements by their keys. Of intervals the kernel takes the
// beginning only before the end, while it may list them from the highest
// (nft_set_rbtree.c); where one ends the next may begin, so that ends are first
// at the same place. Elements in a hash have no order of their own.
func sortElements(elements []tlv) error {
	type keyed struct {
		key []byte
		end bool
		a   tlv
	}
	all := make([]keyed, len(elements))
	for i, e := range elements {
		inside, err := parseTLVs(e.data)
		if err != nil {
			return err
		}
		key, err := nested(inside, nftaElementKey)
		if err != nil {
			return err
		}
		value, _ := find(key, nftaDataValue)
		all[i] = keyed{value, findBig32(inside, nftaElementFlag)&nftElementEnd != 0, e}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		if order := bytes.Compare(a.key, b.key); order != 0 || a.end == b.end {
			return order
		}
		if a.end {
			return -1
		}
		return 1
	})
	for i, k := range all {
		elements[i] = k.a
	}
	return nil
}

func elementMessages(family uint8, head []byte, elements []tlv) []InnerFilter {
	var messages []InnerFilter
	var list []byte
	flush := func() {
		if len(list) == 0 {
			return
		}
		data := appendTLV(slices.Clone(head), nftaElements|unix.NLA_F_NESTED, list)
		messages = append(messages, InnerFilter{unix.NFT_MSG_NEWSETELEM, family, data})
		list = nil
	}
	for _, e := range elements {
		if len(list)+len(e.data) > maxElementsMessage {
			flush()
		}
		list = appendTLV(list, e.kind, e.data)
	}
	flush()
	return messages
}

// replayFilter makes the whole packet filter in one transaction. Tables of the same
// names are replaced.
func (in Inner) replayFilter(t *talk) error {
	if len(in.Filter) == 0 {
		return nil
	}
	boundary := func(kind uint16) nlMessage {
		// struct nfgenmsg: family, version, and the subsystem in network order.
		data := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, unix.NFNL_SUBSYS_NFTABLES)
		return nlMessage{kind, 0, data}
	}
	batch := []nlMessage{boundary(unix.NFNL_MSG_BATCH_BEGIN)}
	add := func(kind, family uint8, flags uint16, data []byte) {
		full := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...)
		batch = append(batch, nlMessage{filterKind(kind), flags, full})
	}
	for i, f := range in.Filter {
		flags, data := uint16(unix.NLM_F_CREATE), f.Data
		switch f.Kind {
		case unix.NFT_MSG_NEWTABLE:
			all, err := parseTLVs(f.Data)
			if err != nil {
				return err
			}
			name := keep(all, nftaTable)
			add(unix.NFT_MSG_NEWTABLE, f.Family, unix.NLM_F_CREATE, name)
			add(unix.NFT_MSG_DELTABLE, f.Family, 0, name)
		case unix.NFT_MSG_NEWSET:
			data = appendBig32TLV(slices.Clone(data), nftaSetID, uint32(i+1))
		case unix.NFT_MSG_NEWRULE:
			flags |= unix.NLM_F_APPEND
		}
		add(f.Kind, f.Family, flags, data)
	}
	batch = append(batch, boundary(unix.NFNL_MSG_BATCH_END))
	if err := t.sendAcknowledged(batch, len(batch)-2); err != nil {
		return fmt.Errorf("make the packet filter: %w", err)
	}
	return nil
}

var errFilterRule = errors.New("a packet filter rule that cannot be read")
