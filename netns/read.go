package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// reader collects the actual state, as far as the wanted one and what was applied
// before are about it.
type reader struct {
	k      *kernel
	c      Config
	before *Config
	want   state
	out    state
	// holders are who has the addresses, other than our own links.
	holders map[netip.Addr]holder
}

// links finds the pairs: the wanted ones, those of before, and whatever else
// inside leads to a link of this container. With no namespace to look into, and
// all set, every name that such a link can have is tried.
func (r *reader) links(all bool) error {
	names := map[string]bool{}
	for _, c := range []*Config{&r.c, r.before} {
		if c == nil {
			continue
		}
		for _, i := range c.Interfaces {
			names[r.c.hostLink(i.Index)] = true
		}
	}
	if all {
		for n := range maxIndex + 1 {
			names[r.c.hostLink(n)] = true
		}
	}
	for name := range names {
		if err := r.pair(name); err != nil {
			return err
		}
	}
	if r.k.inside == nil {
		return nil
	}
	return r.ends()
}

func (r *reader) pair(name string) error {
	l, found, err := r.k.host.linkNamed(name)
	if err != nil || !found {
		return err
	}
	if l.kind != "veth" {
		return fmt.Errorf("%w: %s is a %s", ErrLinkName, name, l.kind)
	}
	r.k.pairs[name] = l
	return nil
}

// ends lists the links inside and finds their other ends.
func (r *reader) ends() error {
	list, err := r.k.inside.links(nil)
	if err != nil {
		return err
	}
	byPeer := map[int]string{}
	for name, l := range r.k.pairs {
		byPeer[l.index] = name
	}
	for _, l := range list {
		if l.name == "lo" {
			r.k.ends["lo"] = l
			continue
		}
		if l.kind != "veth" || l.peerNS < 0 {
			continue
		}
		name, known := byPeer[l.peer]
		if !known {
			p, found, err := r.k.host.linkAt(l.peer)
			if err != nil {
				return err
			}
			if _, ours := r.c.indexOf(p.name); !found || !ours {
				continue
			}
			name = p.name
			r.k.pairs[name] = p
		}
		if p := r.k.pairs[name]; p.peer == l.index && p.peerNS == r.k.id {
			r.k.ends[name] = l
		}
	}
	return nil
}

func (r *reader) add(i item, v value) { r.out = append(r.out, thing{i, v}) }

// wants says whether the thing is in the wanted state.
func (r *reader) wants(i item) bool {
	return slices.ContainsFunc(r.want, func(t thing) bool { return t.item == i })
}

// read fills the state from the links that were found.
func (r *reader) read() error {
	for _, name := range sortedKeys(r.k.pairs) {
		if err := r.readPair(name, r.k.pairs[name]); err != nil {
			return err
		}
	}
	if err := r.readRoutes(); err != nil {
		return err
	}
	if err := r.readProxies(); err != nil {
		return err
	}
	if err := r.readBridge(); err != nil {
		return err
	}
	if r.k.inside != nil {
		if err := r.readInside(); err != nil {
			return err
		}
	}
	return r.readSettings()
}

func (r *reader) readPair(name string, l linkInfo) error {
	v := value{mac: l.mac, mtu: l.mtu, up: l.up, closed: l.closed}
	_, paired := r.k.ends[name]
	v.lost = r.k.inside != nil && !paired
	if l.master != 0 {
		m, _, err := r.k.host.linkAt(l.master)
		if err != nil {
			return err
		}
		v.bridge = m.name
	}
	r.add(item{kind: kindPair, link: name}, v)
	addrs, err := r.k.host.addrs(unix.AF_UNSPEC, l.index)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.prefix.Addr() == gateway4 || a.prefix.Addr() == gateway6 {
			r.add(item{kind: kindAddress, link: name, dst: a.prefix}, value{})
		}
	}
	known, err := r.k.host.neighbours(l.index)
	if err != nil {
		return err
	}
	for a, mac := range known {
		r.add(item{kind: kindNeighbour, link: name, dst: host(a)}, value{mac: mac})
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		routes, err := r.k.host.routes(family, l.index)
		if err != nil {
			return err
		}
		for _, x := range routes {
			r.add(item{kind: kindRoute, dst: x.dst}, value{device: name})
		}
	}
	return nil
}

// addresses are those of the configurations, and which of them are routed.
func (r *reader) addresses() map[netip.Addr]bool {
	routed := map[netip.Addr]bool{}
	for _, c := range []*Config{&r.c, r.before} {
		if c == nil {
			continue
		}
		for _, i := range c.Interfaces {
			for _, a := range i.addrs() {
				routed[a] = routed[a] || i.Bridge == ""
			}
		}
	}
	return routed
}

// readRoutes looks up who has the addresses that none of our links has.
func (r *reader) readRoutes() error {
	have := r.out.values()
	r.holders = map[netip.Addr]holder{}
	for a := range r.addresses() {
		i := item{kind: kindRoute, dst: host(a)}
		if _, ours := have[i]; ours {
			continue
		}
		o, err := r.k.host.holderOf(a)
		switch {
		case err != nil:
			return err
		case o.blackhole:
			r.add(i, value{drop: true})
		default:
			r.holders[a] = o
		}
	}
	return nil
}

// readProxies asks for the entries that are wanted, and for those that addresses
// which are not wanted any more may have.
func (r *reader) readProxies() error {
	ask := map[item]bool{}
	for _, t := range r.want {
		if t.kind == kindProxy {
			ask[t.item] = true
		}
	}
	var stale []netip.Addr
	for _, t := range r.out {
		if t.kind == kindRoute && !r.wants(t.item) {
			stale = append(stale, t.dst.Addr())
		}
	}
	for a, routed := range r.addresses() {
		if i := (item{kind: kindRoute, dst: host(a)}); routed && !r.wants(i) {
			stale = append(stale, a)
		}
	}
	subnets, err := r.k.subnetsAround(stale)
	if err != nil {
		return err
	}
	for _, s := range subnets {
		for _, a := range stale {
			if s.prefix.Contains(a) {
				ask[item{kind: kindProxy, link: s.link, dst: host(a)}] = true
			}
		}
	}
	for i := range ask {
		l, err := r.k.hostLinkNamed(i.link)
		if err != nil {
			return err
		}
		exists, ours, err := r.k.host.proxied(i.dst.Addr(), l.index)
		if err != nil {
			return err
		}
		if exists && (ours || r.wants(i)) {
			r.add(i, value{})
		}
	}
	return nil
}

func (r *reader) readBridge() error {
	if !r.wants(item{kind: kindBridge, link: OwnBridge}) {
		return nil
	}
	l, found, err := r.k.host.linkNamed(OwnBridge)
	if err != nil || !found {
		return err
	}
	r.k.pairs[OwnBridge] = l
	r.add(item{kind: kindBridge, link: OwnBridge}, value{mac: l.mac, up: l.up})
	addrs, err := r.k.host.addrs(unix.AF_UNSPEC, l.index)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if i := (item{kind: kindAddress, link: OwnBridge, dst: a.prefix}); r.wants(i) {
			r.add(i, value{})
		}
	}
	return nil
}

// readSettings compares only what is wanted. A setting that the kernel does not
// have is left alone: without IPv6 or MPTCP it has no effect to prevent.
func (r *reader) readSettings() error {
	read := func(inside bool) (err error) {
		files := settings{}
		defer func() { err = errors.Join(err, files.close()) }()
		for _, t := range slices.Clone(r.want) {
			if t.kind != kindSetting || t.inside != inside {
				continue
			}
			if _, found := r.k.linkOf(t.item); t.link != "" && !found {
				continue // comes with its link
			}
			text, err := files.read(r.k.setting(t.item))
			switch {
			case errors.Is(err, fs.ErrNotExist) && t.optional():
				r.want = slices.DeleteFunc(r.want, func(w thing) bool { return w.item == t.item })
			case err != nil:
				return err
			default:
				r.add(t.item, value{text: text})
			}
		}
		return nil
	}
	if err := read(false); err != nil || r.k.inside == nil {
		return err
	}
	return enter(r.k.ns, func() error { return read(true) })
}

func (k *kernel) linkOf(i item) (linkInfo, bool) {
	links := k.pairs
	if i.inside {
		links = k.ends
	}
	l, ok := links[i.link]
	return l, ok
}

// optional says that not every kernel has the setting.
func (i item) optional() bool {
	return strings.HasPrefix(i.name, "ipv6/") || strings.HasPrefix(i.name, "mptcp/")
}
