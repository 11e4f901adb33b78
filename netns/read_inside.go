package netns

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// readInside reads the container's side. What the container's admin has made
// there is left out: only routes and rules with our protocol number count, and
// addresses that have it, that are wanted, or that were applied before.
func (r *reader) readInside() error {
	pairs := 0
	byIndex := map[int]string{}
	for _, name := range sortedKeys(r.k.ends) {
		l := r.k.ends[name]
		if name == "lo" {
			r.add(item{kind: kindEnd, inside: true, link: name}, value{name: l.name, up: l.up})
			continue
		}
		pairs++
		byIndex[l.index] = name
		r.add(item{kind: kindEnd, inside: true, link: name}, value{name: l.name, mac: l.mac, mtu: l.mtu, up: l.up})
	}
	if pairs == 0 {
		return nil
	}
	return errors.Join(r.readInsideAddrs(byIndex), r.readInsideRoutes(byIndex), r.readInsideNeighbours(byIndex), r.readRules(pairs))
}

func (r *reader) readInsideAddrs(byIndex map[int]string) error {
	known := r.addresses()
	before := map[netip.Addr]bool{}
	if r.before != nil {
		for _, i := range r.before.Interfaces {
			mac, _ := r.before.macs(i)
			before[linkLocal(mac)] = i.has6() // else it is the kernel's
		}
	}
	addrs, err := r.k.inside.addrs(unix.AF_UNSPEC, 0)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		link, ours := byIndex[a.index]
		if !ours {
			continue
		}
		i := item{kind: kindAddress, inside: true, link: link, dst: a.prefix}
		_, configured := known[a.prefix.Addr()]
		if a.protocol == RouteProtocol || configured || before[a.prefix.Addr()] || r.wants(i) {
			r.add(i, value{})
		}
	}
	return nil
}

func (r *reader) readInsideRoutes(byIndex map[int]string) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		routes, err := r.k.inside.routes(family, 0)
		if err != nil {
			return err
		}
		for _, x := range routes {
			if link, ours := byIndex[x.index]; ours {
				r.add(
					item{kind: kindRoute, inside: true, dst: x.dst, table: x.table, metric: x.metric},
					value{device: link, via: x.via, onlink: x.onlink},
				)
			}
		}
	}
	return nil
}

func (r *reader) readInsideNeighbours(byIndex map[int]string) error {
	for index, link := range byIndex {
		known, err := r.k.inside.neighbours(index)
		if err != nil {
			return err
		}
		for _, gw := range []netip.Addr{gateway4, gateway6} {
			if mac, ok := known[gw]; ok {
				r.add(item{kind: kindNeighbour, inside: true, link: link, dst: host(gw)}, value{mac: mac})
			}
		}
	}
	return nil
}

// readRules reads rules where there can be some: they are for second interfaces.
func (r *reader) readRules(pairs int) error {
	if pairs < 2 && len(r.c.Interfaces) < 2 {
		return nil
	}
	rules, err := r.k.inside.rules()
	if err != nil {
		return err
	}
	for _, x := range rules {
		index := (x.priority - routeTables) / 2
		if index < 0 || index > maxIndex {
			continue
		}
		r.add(item{
			kind: kindRule, inside: true, link: r.c.hostLink(index), dst: x.source, table: x.table, metric: x.priority,
		}, value{})
	}
	return nil
}
