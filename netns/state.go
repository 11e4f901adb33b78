package netns

import (
	"fmt"
	"net/netip"
)

// kind says what a thing in the kernel is.
type kind uint8

const (
	kindSetting   kind = iota // a file below /proc/sys/net
	kindBridge                // the host's bridge ctctl0
	kindPair                  // the host's end of a veth pair
	kindEnd                   // the container's end, or its lo
	kindAddress               // of a link
	kindNeighbour             // a permanent one
	kindRoute
	kindRule  // of policy routing
	kindProxy // the host answers for an address on another link
)

var kindNames = [...]string{
	"setting", "bridge", "link", "link", "address", "neighbour", "route", "rule", "proxy entry",
}

// item is the identity of a thing: there is at most one of each.
type item struct {
	kind   kind
	inside bool // in the container's namespace
	// link is the host's end of the pair that the thing belongs to, whichever
	// side it is on; "lo" inside; "" for routes and host-wide settings; the host's
	// own link that a proxy entry is on; ctctl0.
	link string
	// dst is the address, the neighbour, the destination, the source of a rule.
	dst    netip.Prefix
	table  int    // of routes inside, and what rules point to
	metric int    // of routes inside, and the priority of rules
	name   string // of a setting, with * for the link's name
}

// value is what may change of a thing while it stays the same thing.
type value struct {
	name   string // of the container's end
	mac    string
	mtu    int
	up     bool
	bridge string // that the pair is a port of
	closed bool   // the bridge's port lets nothing through
	lost   bool   // the pair does not lead into the container's namespace
	device string // the pair a route leads to, by the host's link
	drop   bool   // the route swallows
	via    netip.Addr
	onlink bool   // the router is reached though no address says so
	text   string // of a setting
}

// thing is an item with its value.
type thing struct {
	item
	value
}

// state is what the kernel has of one container's network, or is to have, in the
// order in which it is made.
type state []thing

func (s state) values() map[item]value {
	m := make(map[item]value, len(s))
	for _, t := range s {
		m[t.item] = t.value
	}
	return m
}

// op is what is done to a thing.
type op uint8

const (
	opAdd op = iota
	opAlter
	opRemove
)

var opNames = [...]string{"add", "change", "remove"}

// change is one step from one state to another.
type change struct {
	op op
	item
	from, to value
	// end is the container's end that comes with a pair that is added.
	end  value
	rank rank
}

// inverse undoes the change. Of a pair, only that it was made can be undone.
func (c change) inverse() change {
	switch c.op {
	case opAdd:
		return change{op: opRemove, item: c.item, from: c.to}
	case opRemove:
		return change{op: opAdd, item: c.item, to: c.from}
	}
	return change{op: opAlter, item: c.item, from: c.to, to: c.from}
}

func (c change) String() string {
	if c.op == opRemove {
		return opNames[c.op] + " " + c.describe(c.from)
	}
	return opNames[c.op] + " " + c.describe(c.to)
}

// describe names a thing as ip(8) would.
func (i item) describe(v value) string {
	what := kindNames[i.kind]
	switch i.kind {
	case kindSetting:
		what = fmt.Sprintf("setting %s to %s", i.name, v.text)
	case kindPair, kindBridge:
		what += " " + i.link
	case kindEnd:
		what += " " + v.name
	case kindRoute:
		what += " " + i.dst.String()
		switch {
		case v.drop:
			what += " to a blackhole"
		case v.via.IsValid():
			what += " via " + v.via.String()
		}
	case kindRule:
		what += fmt.Sprintf(" from %s to table %d", i.dst, i.table)
	case kindProxy:
		what += fmt.Sprintf(" %s on %s", i.dst.Addr(), i.link)
	case kindNeighbour:
		what += " " + i.dst.Addr().String()
	default:
		what += " " + i.dst.String()
	}
	if i.inside {
		what += " in the container"
	}
	return what
}
