package netns

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"slices"
)

// OwnBridge is the bridge that is made when an interface names it and the host
// has none of that name, and that [Forget] removes with its last port. The host
// is the router of its networks, and hides them behind its own addresses.
const OwnBridge = "ctctl0"

// Networks of the bridge ctctl0, beside those of automatic routed addresses. The
// first address of each is the host's, and the containers' default router.
var (
	OwnNetwork4 = netip.MustParsePrefix("10.158.0.1/16")
	OwnNetwork6 = netip.MustParsePrefix("fd9c:7c71:9e::1/64")
)

// ownMAC is the bridge's hardware address on every host. It tells a bridge that
// was made here from an admin's of the same name, and does not change as ports
// come and go.
func ownMAC() net.HardwareAddr {
	sum := sha256.Sum256([]byte(OwnBridge))
	mac := net.HardwareAddr(sum[:6:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}

// ownBridge is the bridge with its addresses.
func (p *plan) ownBridge() {
	p.add(item{kind: kindBridge, link: OwnBridge}, value{mac: ownMAC().String(), up: true})
	p.add(item{kind: kindAddress, link: OwnBridge, dst: OwnNetwork4}, value{})
	p.add(item{kind: kindAddress, link: OwnBridge, dst: OwnNetwork6}, value{})
}

// hidden says whether the interface's addresses are hidden behind the host's.
// Those of ctctl0 always are: nobody outside knows a way to them.
func (i Interface) hidden() bool { return i.NAT || i.Bridge == OwnBridge }

// ownGateways are the bridge's own addresses that the interface can reach.
func (i Interface) ownGateways() []netip.Addr {
	var out []netip.Addr
	for _, p := range []netip.Prefix{OwnNetwork4, OwnNetwork6} {
		if i.reaches(p.Addr()) {
			out = append(out, p.Addr())
		}
	}
	return out
}

// reaches says whether one of the interface's addresses is in a network with a.
func (i Interface) reaches(a netip.Addr) bool {
	return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() != a && p.Contains(a) })
}
