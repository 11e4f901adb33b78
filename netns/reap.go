package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Links returns the names of the host's links that belong to containers, in the
// order of their creation.
func Links(ctx context.Context) (names []string, err error) {
	defer wrapOp("list links", "", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.pairNames()
}

func (s *socket) pairNames() ([]string, error) {
	links, err := s.links(ofKind("veth"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		if l.kind == "veth" && linkPattern.MatchString(l.name) {
			names = append(names, l.name)
		}
	}
	return names, nil
}

// Reap removes what is on the host's side of containers that are not known any
// more, or of interfaces that known ones do not have: links, routes that swallow,
// proxy entries, entries of the packet filter. It returns what it removed. The
// caller holds the lock that keeps containers from being created and changed.
func Reap(ctx context.Context, known []Config) (removed []string, err error) {
	defer wrapOp("reap network", "", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	links, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, c := range known {
		for _, i := range c.Interfaces {
			links[c.hostLink(i.Index)] = true
			for _, a := range i.addrs() {
				addrs[a] = addrs[a] || i.Bridge == ""
			}
		}
	}
	for _, reap := range []func() ([]string, error){
		func() ([]string, error) { return s.reapLinks(links) },
		func() ([]string, error) { return s.reapProxies(addrs) },
		func() ([]string, error) { return s.reapRoutes(addrs) },
		func() ([]string, error) { return reapFilter(ctx, known) },
	} {
		gone, err := reap()
		removed = append(removed, gone...)
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func (s *socket) reapLinks(known map[string]bool) (removed []string, err error) {
	names, err := s.pairNames()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		l, found, err := s.linkNamed(name)
		if err == nil && found {
			err = s.deleteLink(l.index)
		}
		if err != nil {
			return removed, fmt.Errorf("link %s: %w", name, err)
		}
		removed = append(removed, "link "+name)
	}
	return removed, nil
}

func (s *socket) reapProxies(known map[netip.Addr]bool) (removed []string, err error) {
	all, err := s.proxies()
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if known[n.addr] {
			continue
		}
		if err := s.ask(unix.RTM_DELNEIGH, 0, proxyBody(n.addr, n.index), nil); err != nil && !isAbsent(err) {
			return removed, fmt.Errorf("proxy entry %s: %w", n.addr, err)
		}
		removed = append(removed, "proxy entry "+n.addr.String())
	}
	return removed, nil
}

// reapRoutes removes routes that swallow; others went with their links.
func (s *socket) reapRoutes(known map[netip.Addr]bool) (removed []string, err error) {
	k := kernel{host: s}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		all, err := s.routes(family, 0)
		if err != nil {
			return removed, err
		}
		for _, r := range all {
			if r.typ != unix.RTN_BLACKHOLE || !r.dst.IsSingleIP() || known[r.dst.Addr()] {
				continue
			}
			c := change{op: opRemove, item: item{kind: kindRoute, dst: r.dst}, from: value{drop: true}}
			if err := k.perform(c); err != nil {
				return removed, fmt.Errorf("route %s: %w", r.dst, err)
			}
			removed = append(removed, "route "+r.dst.Addr().String())
		}
	}
	return removed, nil
}

func reapFilter(ctx context.Context, known []Config) (removed []string, err error) {
	keep := map[string]bool{}
	for _, c := range known {
		keep[strings.TrimPrefix(c.hostLink(0), "ct")] = true
	}
	gone, err := reapPolicy(ctx, func(uid12 string) bool { return keep[uid12] })
	for _, uid := range gone {
		removed = append(removed, "packet filter of "+uid)
	}
	return removed, err
}

// removeOwnBridge deletes ctctl0, if it was made here and has no port.
func (s *socket) removeOwnBridge() error {
	l, found, err := s.linkNamed(OwnBridge)
	if err != nil || !found || l.kind != "bridge" || l.mac != ownMAC().String() {
		return err
	}
	ports, err := s.links(portsOf(l.index))
	if err != nil {
		return err
	}
	for _, p := range ports {
		if p.master == l.index {
			return nil
		}
	}
	return s.deleteLink(l.index)
}

// Forget removes the bridge ctctl0 when it has no port, and the packet filter when
// nothing is in it and the host has no link of a container any more; else it does
// nothing. Forwarding stays on. It must not run beside an Apply for the first
// container: the caller holds the lock that keeps containers from starting.
func Forget(ctx context.Context) (err error) {
	defer wrapOp("forget network", "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return errors.Join(s.removeOwnBridge(), forgetFilter(ctx))
}
