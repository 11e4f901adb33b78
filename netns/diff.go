package netns

import (
	"cmp"
	"net/netip"
	"slices"
)

// rank orders changes. What is new comes first and what goes comes last, so that
// an address that replaces another is there before the other goes. Packets pass
// only when the packet filter (rankPolicy) and the container's side are complete.
//
// What marks other things as ours goes after them: a proxy entry is found by the
// route of its address, a rule by its link. So whatever is left when a sequence
// is cut off anywhere is found by the next.
type rank int

const (
	rankReplaced rank = iota // a pair that leads elsewhere
	rankHostwide             // settings of the whole host
	rankBridge               // ctctl0 and its addresses
	rankPair                 // new pairs, down
	rankSetting              // of both ends, before they come up
	rankForget               // neighbours that a new hardware address makes the kernel forget
	rankEnd                  // the container's end
	rankMakeRoom             // an IPv6 address that comes again with another length
	rankInsideAddress
	rankInsideNeighbour
	rankInsideRoute
	rankInsideRule
	rankPolicy // packet filter and rate, done by others between the changes
	rankHostForget
	rankHostUp
	rankHostAddress
	rankHostNeighbour
	rankHostRoute
	rankProxy
	rankNoProxy // from here on removals
	rankNoRule
	rankNoInsideRoute
	rankNoInsideNeighbour
	rankNoInsideAddress
	rankNoHostRoute
	rankNoHostNeighbour
	rankNoHostAddress
	rankNoHostIPv6 // takes all addresses and routes of that version along
	rankHostDown
	rankNoPair
)

// diff returns what has to be done, in order, to get from one state to the other.
// Settings and the bridge are never removed: other containers use them, or they
// end with their link. What the kernel removes together with a pair is not
// removed one by one.
func diff(actual, wanted state) []change {
	have, want := actual.values(), wanted.values()
	gone := leaving(actual, want)
	var out []change
	for _, t := range forgotten(have, want) {
		if !gone[t.link] {
			delete(have, t.item)
			out = append(out, change{op: opRemove, item: t.item, from: t.value, rank: forgetRank(t.item)})
		}
	}
	for _, t := range actual {
		_, stays := want[t.item]
		_, there := have[t.item]
		switch {
		case !there:
		case t.kind == kindPair && t.lost:
			delete(have, t.item)
			out = append(out, change{op: opRemove, item: t.item, from: t.value, rank: rankReplaced})
		case t.kind == kindPair && gone[t.link]:
			out = append(out, change{op: opRemove, item: t.item, from: t.value, rank: rankNoPair})
		case t.goesWith(gone):
			if lost(actual, t) {
				delete(have, t.item)
			}
		case !stays && t.kind != kindSetting && t.kind != kindBridge && t.kind != kindEnd:
			out = append(out, change{op: opRemove, item: t.item, from: t.value, rank: removalRank(t.item, wanted)})
		}
	}
	for _, t := range wanted {
		was, exists := have[t.item]
		switch {
		case !exists:
			out = append(out, additions(t, have, want)...)
		case was != t.value:
			out = append(out, change{op: opAlter, item: t.item, from: was, to: t.value, rank: alterRank(t, was)})
		}
	}
	slices.SortStableFunc(out, func(a, b change) int { return cmp.Compare(a.rank, b.rank) })
	return out
}

// forgotten are the neighbours of links whose own hardware address changes: the
// kernel forgets even permanent ones then. They are removed before, so that they
// can be brought back.
func forgotten(have, want map[item]value) []thing {
	var out []thing
	for i, v := range have {
		if i.kind != kindNeighbour {
			continue
		}
		own := item{kind: kindPair, link: i.link}
		if i.inside {
			own = item{kind: kindEnd, inside: true, link: i.link}
		}
		if w, found := want[own]; found && w.mac != have[own].mac {
			out = append(out, thing{i, v})
		}
	}
	slices.SortFunc(out, func(a, b thing) int { return a.dst.Addr().Compare(b.dst.Addr()) })
	return out
}

func forgetRank(i item) rank {
	if i.inside {
		return rankForget
	}
	return rankHostForget
}

// leaving are the links that are deleted, for good or to be made again.
func leaving(actual state, want map[item]value) map[string]bool {
	gone := map[string]bool{}
	for _, t := range actual {
		if t.kind != kindPair {
			continue
		}
		if _, stays := want[t.item]; !stays || t.lost {
			gone[t.link] = true
		}
	}
	return gone
}

// goesWith says whether the kernel removes the thing with one of the links.
func (t thing) goesWith(gone map[string]bool) bool {
	switch t.kind {
	case kindProxy, kindPair, kindBridge, kindRule:
		return false
	case kindRoute:
		return gone[t.device]
	}
	return gone[t.link]
}

// lost says whether the link of a thing is deleted before anything else is done.
func lost(actual state, t thing) bool {
	for _, p := range actual {
		if p.kind == kindPair && p.lost && (p.link == t.link || p.link == t.device) {
			return true
		}
	}
	return false
}

// additions makes a thing. A pair is made down, with both ends; then each is
// brought to where it shall be, at its own time.
func additions(t thing, have, want map[item]value) []change {
	if t.kind == kindEnd {
		// It came with its pair, complete but for being up.
		down := t.value
		down.up = false
		return []change{{op: opAlter, item: t.item, from: down, to: t.value, rank: rankEnd}}
	}
	first := change{op: opAdd, item: t.item, to: t.value, rank: additionRank(t)}
	if t.kind != kindPair {
		return []change{first}
	}
	first.to.up, first.to.bridge, first.to.closed = false, "", false
	first.end = want[item{kind: kindEnd, inside: true, link: t.link}]
	if first.to == t.value {
		return []change{first}
	}
	return []change{first, {op: opAlter, item: t.item, from: first.to, to: t.value, rank: alterRank(t, first.to)}}
}

func additionRank(t thing) rank {
	switch t.kind {
	case kindSetting:
		if t.link == "" {
			return rankHostwide
		}
		return rankSetting
	case kindBridge:
		return rankBridge
	case kindPair:
		return rankPair
	case kindAddress:
		switch {
		case t.inside:
			return rankInsideAddress
		case t.link == OwnBridge:
			return rankBridge
		}
		return rankHostAddress
	case kindNeighbour:
		if t.inside {
			return rankInsideNeighbour
		}
		return rankHostNeighbour
	case kindRoute:
		if t.inside {
			return rankInsideRoute
		}
		return rankHostRoute
	case kindRule:
		return rankInsideRule
	}
	return rankProxy
}

func alterRank(t thing, was value) rank {
	switch {
	case t.kind == kindEnd:
		return rankEnd
	case t.kind == kindPair && was.up && !t.up:
		return rankHostDown
	case t.kind == kindPair:
		return rankHostUp
	case t.item.name == disableIPv6 && t.text == "1":
		return rankNoHostIPv6
	}
	return additionRank(t)
}

func removalRank(i item, wanted state) rank {
	switch i.kind {
	case kindProxy:
		return rankNoProxy
	case kindRule:
		return rankNoRule
	case kindRoute:
		if i.inside {
			return rankNoInsideRoute
		}
		return rankNoHostRoute
	case kindNeighbour:
		if i.inside {
			return rankNoInsideNeighbour
		}
		return rankNoHostNeighbour
	}
	switch {
	case !i.inside:
		return rankNoHostAddress
	case comesAgain(i, wanted):
		return rankMakeRoom
	}
	return rankNoInsideAddress
}

// comesAgain says whether the IPv6 address is wanted with another prefix length.
// The kernel knows one of each on a link (IPv4 addresses can be there twice).
func comesAgain(i item, wanted state) bool {
	return i.dst.Addr().Is6() && slices.ContainsFunc(wanted, func(t thing) bool {
		return t.kind == kindAddress && t.inside && t.link == i.link && t.dst.Addr() == i.dst.Addr()
	})
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
