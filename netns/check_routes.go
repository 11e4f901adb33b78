package netns

import (
	"fmt"
	"math"
	"net/netip"
)

func (i Interface) checkGateways() error {
	if i.Bridge == "" && len(i.Gateways) > 0 {
		return badConfig("gateway %s: a routed interface has the host as its router, leave it out or name a bridge", i.Gateways[0])
	}
	families := map[bool]netip.Addr{}
	for _, gw := range i.Gateways {
		if !gw.IsValid() || gw.Zone() != "" || gw.Is4In6() || gw.IsUnspecified() || gw.IsMulticast() || gw.IsLoopback() {
			return badConfig("gateway %s is not the address of a router", gw)
		}
		if other, ok := families[gw.Is4()]; ok {
			return badConfig("gateways %s and %s are of one IP version: only one can be the default router", other, gw)
		}
		families[gw.Is4()] = gw
		if err := i.checkReach("gateway", gw); err != nil {
			return err
		}
	}
	return nil
}

// checkReach refuses a router that is on no network of the interface. Every IPv6
// interface is on the link-local one.
func (i Interface) checkReach(what string, a netip.Addr) error {
	if i.reaches(a) || a.Is6() && a.IsLinkLocalUnicast() && i.has6() {
		return nil
	}
	for _, p := range i.Addresses {
		if p.Addr() == a {
			return badConfig("%s %s is the container's own address", what, a)
		}
	}
	return badConfig("%s %s is in the network of no address of the interface: add an address of that network, with its prefix length", what, a)
}

func (i Interface) checkRoutes(seen seen) error {
	for _, r := range i.Routes {
		if err := i.checkRoute(r); err != nil {
			return err
		}
		if err := seen.twice(fmt.Sprintf("route to %s with metric %d", r.To, routeItem(r.To, mainTable, r.Metric).metric), i.Name); err != nil {
			return err
		}
	}
	return nil
}

func (i Interface) checkRoute(r Route) error {
	switch {
	case !r.To.IsValid() || r.To.Addr().Zone() != "" || r.To.Addr().Is4In6():
		return badConfig("route to %s: the destination is not a network such as 10.1.0.0/16", r.To)
	case r.To != r.To.Masked():
		return badConfig("route to %s: bits behind the prefix length are set, did you mean %s?", r.To, r.To.Masked())
	case r.To.Addr().IsMulticast() || r.To.Addr().IsLoopback():
		return badConfig("route to %s: the destination is not a network of hosts", r.To)
	case r.Metric < 0 || r.Metric > math.MaxInt32:
		return badConfig("route to %s: metric %d is not between 0 and %d", r.To, r.Metric, math.MaxInt32)
	case r.To.Addr().Is4() && !i.has4() || r.To.Addr().Is6() && !i.has6():
		return badConfig("route to %s: the interface has no address of that IP version", r.To)
	case r.To.Bits() == 0 && r.Metric == 0 && i.hasDefault(r.To.Addr().Is4()):
		return badConfig("route to %s: the interface has a default route already", r.To)
	case !r.Via.IsValid():
		return nil
	case r.Via.Is4() != r.To.Addr().Is4() || r.Via.Zone() != "":
		return badConfig("route to %s: %s is no router for that IP version", r.To, r.Via)
	case i.Bridge == "":
		return badConfig("route to %s: a routed interface has no router but the host, leave out via %s", r.To, r.Via)
	}
	return i.checkReach("router", r.Via)
}

func (i Interface) hasDefault(v4 bool) bool {
	for _, gw := range i.gateways() {
		if gw.Is4() == v4 {
			return true
		}
	}
	return false
}
