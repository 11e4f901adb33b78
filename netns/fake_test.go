package netns

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// fake is a kernel in memory. It takes things along as the real one does, and
// refuses what the real one would refuse.
type fake struct {
	have map[item]value
	seen func(change) // called after every change
}

func newFake() *fake {
	return &fake{have: map[item]value{{kind: kindEnd, inside: true, link: "lo"}: {name: "lo"}}}
}

// restarted gives the container a new namespace; its pairs still lead to the old.
func (f *fake) restarted() {
	maps.DeleteFunc(f.have, func(i item, _ value) bool { return i.inside })
	for i, v := range f.have {
		if i.kind == kindPair {
			v.lost = true
			f.have[i] = v
		}
	}
	f.have[item{kind: kindEnd, inside: true, link: "lo"}] = value{name: "lo"}
}

func (f *fake) wait(change) (step, bool) { return step{}, false }

func (f *fake) perform(c change) error {
	if err := f.refuse(c); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	switch {
	case c.kind == kindPair && c.op == opAdd:
		down := c.end
		down.up = false
		f.have[item{kind: kindEnd, inside: true, link: c.link}] = down
		f.have[c.item] = c.to
	case c.op == opRemove && c.kind == kindSetting:
		// Only links take their settings along.
	case c.op == opRemove:
		delete(f.have, c.item)
		f.removed(c)
	default:
		f.have[c.item] = c.to
	}
	if c.op == opAlter && c.kind != kindNeighbour && c.from.mac != c.to.mac {
		maps.DeleteFunc(f.have, func(i item, _ value) bool {
			return i.kind == kindNeighbour && i.link == c.link && i.inside == c.inside
		})
	}
	if c.name == disableIPv6 && !c.inside && c.to.text == "1" {
		maps.DeleteFunc(f.have, func(i item, v value) bool {
			on := i.link == c.link || v.device == c.link
			return on && !i.inside && i.kind != kindProxy && i.kind != kindSetting && i.dst.IsValid() && i.dst.Addr().Is6()
		})
	}
	if c.kind == kindPair && c.op == opAlter && !c.to.up {
		maps.DeleteFunc(f.have, func(i item, v value) bool {
			return !i.inside && (v.device == c.link || i.link == c.link && (i.kind == kindNeighbour || i.kind == kindAddress && i.dst.Addr().Is6()))
		})
	}
	if f.seen != nil {
		f.seen(c)
	}
	return nil
}

func (f *fake) refuse(c change) error {
	was, exists := f.have[c.item]
	pair, hasPair := f.have[item{kind: kindPair, link: c.link}]
	switch {
	case c.op == opAlter && (!exists || was != c.from):
		return fmt.Errorf("it is %+v, not %+v", was, c.from)
	case c.op == opAdd && exists && (was != c.to || c.kind == kindPair):
		return errors.New("exists")
	case c.op == opRemove && !exists:
		return nil
	case c.op == opRemove || c.kind == kindPair || c.kind == kindBridge || c.kind == kindProxy || c.kind == kindEnd:
		return nil
	case c.link == OwnBridge && f.have[item{kind: kindBridge, link: OwnBridge}] == (value{}):
		return errors.New("no bridge")
	case c.link != "" && c.link != OwnBridge && !hasPair && !(c.inside && c.link == "lo"):
		return errors.New("no link")
	case c.kind == kindRoute && !c.inside && c.to.device != "" && !f.have[item{kind: kindPair, link: c.to.device}].up:
		return errors.New("network is down")
	case c.kind == kindNeighbour && !c.inside && !pair.up:
		return errors.New("network is down")
	case !c.inside && c.kind == kindAddress && c.link != OwnBridge && c.dst.Addr().Is6() && f.disabled(c.link),
		c.kind == kindRoute && !c.inside && c.to.device != "" && c.dst.Addr().Is6() && f.disabled(c.to.device):
		return errors.New("IPv6 is off")
	case c.kind == kindAddress && c.inside && c.dst.Addr().Is6() && !exists && f.count(c.link, c.dst.Addr()) > 0:
		return errors.New("address exists")
	case c.kind == kindRoute && c.inside && !f.have[item{kind: kindEnd, inside: true, link: c.to.device}].up:
		return errors.New("network is down")
	case c.kind == kindRoute && c.inside && c.to.via.IsValid() && !c.to.onlink && !f.reaches(c.to.device, c.to.via):
		return errors.New("gateway is unreachable")
	}
	return nil
}

// disabled says whether IPv6 is off on a host's link.
func (f *fake) disabled(link string) bool {
	return f.have[item{kind: kindSetting, link: link, name: disableIPv6}].text == "1"
}

// count is how often an address is on a link inside.
func (f *fake) count(link string, a netip.Addr) int {
	n := 0
	for i := range f.have {
		if i.kind == kindAddress && i.inside && i.link == link && i.dst.Addr() == a {
			n++
		}
	}
	return n
}

func (f *fake) reaches(link string, a netip.Addr) bool {
	for i := range f.have {
		if i.kind == kindAddress && i.inside && i.link == link && i.dst.Contains(a) {
			return true
		}
	}
	return false
}

// removed takes along what goes with a thing.
func (f *fake) removed(c change) {
	switch {
	case c.kind == kindPair:
		maps.DeleteFunc(f.have, func(i item, v value) bool {
			return i.kind != kindProxy && i.kind != kindRule && i.link == c.link || v.device == c.link
		})
	case c.kind == kindAddress && c.inside && c.dst.Addr().Is4():
		f.removedAddress(c)
	}
}

func (f *fake) removedAddress(c change) {
	promote := f.have[item{kind: kindSetting, inside: true, link: c.link, name: "ipv4/conf/*/promote_secondaries"}].text == "1"
	left := 0
	for i := range f.have {
		if i.kind != kindAddress || !i.inside || i.link != c.link || !i.dst.Addr().Is4() {
			continue
		}
		if !promote && i.dst.Masked() == c.dst.Masked() {
			delete(f.have, i)
			continue
		}
		left++
	}
	if left == 0 {
		maps.DeleteFunc(f.have, func(i item, v value) bool {
			return i.kind == kindRoute && i.inside && v.device == c.link && i.dst.Addr().Is4()
		})
	}
}

// read returns what the real reader would find: things of links and addresses
// that it knows of.
func (f *fake) read(want state, c Config, before *Config) state {
	r := &reader{c: c, before: before, want: want}
	known := r.addresses()
	pairs := 0
	for i, v := range f.have {
		if i.kind == kindPair {
			pairs++
		}
		if i.kind == kindRoute && !i.inside && v.device != "" {
			known[i.dst.Addr()] = true
		}
	}
	var out state
	for i, v := range f.have {
		_, addressKnown := known[i.dst.Addr()]
		switch {
		case (i.kind == kindSetting || i.kind == kindBridge || i.link == OwnBridge) && !r.wants(i):
			continue
		case i.kind == kindProxy && !addressKnown && !r.wants(i):
			continue
		case i.kind == kindRoute && v.drop && !addressKnown:
			continue
		case i.kind == kindRule && pairs < 2 && len(c.Interfaces) < 2:
			continue
		}
		out = append(out, thing{i, v})
	}
	slices.SortFunc(out, func(a, b thing) int { return compareItems(a.item, b.item) })
	return out
}

func compareItems(a, b item) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.link, b.link), strings.Compare(a.name, b.name),
		a.dst.Addr().Compare(b.dst.Addr()), cmp.Compare(a.dst.Bits(), b.dst.Bits()),
		cmp.Compare(a.table, b.table), cmp.Compare(a.metric, b.metric))
}

// plan is what Apply would want and do.
func (f *fake) plan(stage Stage, c Config, before *Config) (want state, changes []change) {
	switch stage {
	case Joined, Held:
		want = wanted(c, stage, true, fakeFacts)
	case Blackholed:
		want = blackholes(c, fakeFacts)
	}
	have := f.read(want, c, before)
	if stage == Held {
		want = append(want, swallowed(f.read(wanted(c, Joined, true, fakeFacts), c, before), c)...)
		have = f.read(want, c, before)
	}
	return want, diff(have, want)
}

func (f *fake) apply(stage Stage, c Config, before *Config) error {
	_, changes := f.plan(stage, c, before)
	for _, ch := range changes {
		if err := f.perform(ch); err != nil {
			return err
		}
	}
	return nil
}

// leftovers compares everything there is with what is wanted. Host-wide settings
// and the bridge may stay.
func (f *fake) leftovers(want state) error {
	wanted := want.values()
	for i, v := range wanted {
		if got, found := f.have[i]; !found || got != v {
			return fmt.Errorf("wanted %s %+v, got %+v, %v", i.describe(v), v, got, found)
		}
	}
	for i, v := range f.have {
		_, found := wanted[i]
		lasting := i.kind == kindSetting && (i.link == "" || wanted[item{kind: kindPair, link: i.link}] != (value{})) ||
			i.kind == kindBridge || i.link == OwnBridge || i.link == "lo"
		if !found && !lasting {
			return fmt.Errorf("left over: %s", i.describe(v))
		}
	}
	return nil
}

var fakeFacts = facts{
	mtu: map[string]int{"br0": 1500, "br1": 9000},
	subnets: []subnet{
		{netip.MustParsePrefix("10.0.0.0/24"), "up0"},
		{netip.MustParsePrefix("fd00::/64"), "up0"},
		{netip.MustParsePrefix("10.0.0.0/16"), "up1"},
	},
}
