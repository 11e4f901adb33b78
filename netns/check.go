package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
)

const (
	// minIPv6MTU is the smallest MTU IPv6 may run on (RFC 8200, section 5).
	minIPv6MTU = 1280
	// minIPv4MTU is the smallest MTU IPv4 may run on (RFC 791).
	minIPv4MTU = 68
	maxMTU     = 65535
	maxIndex   = MaxInterfaces - 1
)

// MaxInterfaces is how many a container can have: the name of the host's link has
// one character for the number.
const MaxInterfaces = 36

var (
	uidPattern  = regexp.MustCompile(`^[0-9a-f]{16}$`)
	linkPattern = regexp.MustCompile(`^ct[0-9a-f]{12}[1-9a-z]?$`)
	// namePattern leaves out what the kernel would take, and other programs not.
	namePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,14}$`)
)

func badConfig(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
}

// Validate refuses what no host could set up. Every error is an ErrConfig, and
// says which interface it is about. Whether the bridges are there and addresses
// are free, [Apply] finds out.
func (c Config) Validate() error {
	if err := c.checkIdentity(); err != nil {
		return err
	}
	if len(c.Interfaces) > MaxInterfaces {
		return badConfig("%d interfaces are more than %d", len(c.Interfaces), MaxInterfaces)
	}
	seen := seen{}
	for _, i := range c.Interfaces {
		if err := c.checkInterface(i, seen); err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	if err := c.checkOverlap(); err != nil {
		return err
	}
	_, err := c.forwards()
	return err
}

// checkIdentity checks only what taking a connection down needs.
func (c Config) checkIdentity() error {
	if !uidPattern.MatchString(c.UID) {
		return badConfig("uid %q is not 16 hexadecimal digits", c.UID)
	}
	for _, i := range c.Interfaces {
		if i.Index < 0 || i.Index > maxIndex {
			return badConfig("interface %s: index %d is not between 0 and %d", i.Name, i.Index, maxIndex)
		}
		for _, p := range i.Addresses {
			if reason := unusable(p.Addr()); reason != "" {
				return badConfig("interface %s: address %s %s", i.Name, p, reason)
			}
		}
	}
	return nil
}

// seen collects what may be in a configuration only once.
type seen map[string]string

// twice says who has the thing already.
func (s seen) twice(thing, who string) error {
	if other, ok := s[thing]; ok {
		if other == who {
			return badConfig("%s is given twice", thing)
		}
		return badConfig("%s is given twice, to %s too", thing, other)
	}
	s[thing] = who
	return nil
}

func (c Config) checkInterface(i Interface, seen seen) error {
	if err := checkName("name", i.Name); err != nil {
		return err
	}
	once := []string{"name " + i.Name, fmt.Sprintf("index %d", i.Index)}
	if i.Bridge != "" {
		if err := checkName("bridge", i.Bridge); err != nil {
			return err
		}
		once = append(once, "bridge "+i.Bridge)
	}
	if err := c.checkMAC(i); err != nil {
		return err
	}
	mac, _ := c.macs(i)
	once = append(once, "hardware address "+mac.String())
	for _, p := range i.Addresses {
		once = append(once, "address "+p.Addr().String())
	}
	for _, what := range once {
		if err := seen.twice(what, i.Name); err != nil {
			return err
		}
	}
	if err := i.checkMTU(); err != nil {
		return err
	}
	if err := i.Rate.check(); err != nil {
		return err
	}
	if err := i.checkAddresses(); err != nil {
		return err
	}
	if err := i.checkGateways(); err != nil {
		return err
	}
	return i.checkRoutes(seen)
}

func checkName(what, name string) error {
	switch {
	case len(name) > 15:
		return badConfig("%s %q is longer than 15 characters", what, name)
	case !namePattern.MatchString(name):
		return badConfig("%s %q is not made of letters, digits, dots, dashes and underscores", what, name)
	case name == "lo" || name == "all" || name == "default":
		return badConfig("%s %q is the kernel's own", what, name)
	}
	return nil
}

func (c Config) checkMAC(i Interface) error {
	if i.MAC == "" {
		return nil
	}
	mac, err := net.ParseMAC(i.MAC)
	_, hostMAC := c.macs(Interface{Index: i.Index, Bridge: i.Bridge})
	switch {
	case err != nil:
		return fmt.Errorf("%w: hardware address: %w", ErrConfig, err)
	case len(mac) != 6:
		return badConfig("hardware address %s is not 6 bytes long", mac)
	case mac[0]&1 != 0:
		return badConfig("hardware address %s is a group's", mac)
	case mac.String() == "00:00:00:00:00:00":
		return badConfig("hardware address %s is zero", mac)
	case mac.String() == hostMAC.String():
		return badConfig("hardware address %s is that of the host's end", mac)
	}
	return nil
}

func (i Interface) checkMTU() error {
	least := minIPv4MTU
	if i.has6() {
		least = minIPv6MTU
	}
	if i.MTU != 0 && (i.MTU < least || i.MTU > maxMTU) {
		return badConfig("MTU %d is not between %d and %d", i.MTU, least, maxMTU)
	}
	return nil
}

// checkAddresses looks at what a prefix length means on a bridge.
func (i Interface) checkAddresses() error {
	for _, p := range i.Addresses {
		switch {
		case !p.IsValid() || p.Bits() == 0:
			return badConfig("address %s has no usable prefix length", p)
		case i.Bridge == OwnBridge && (p.Addr() == OwnNetwork4.Addr() || p.Addr() == OwnNetwork6.Addr()):
			return badConfig("address %s is that of the bridge %s itself", p, OwnBridge)
		case i.Bridge == "" || p.Bits() >= p.Addr().BitLen()-1:
		case p.Masked().Addr() == p.Addr():
			return badConfig("address %s is that of its network: give one of a host in it", p)
		case p.Addr().Is4() && lastOf(p) == p.Addr():
			return badConfig("address %s is the broadcast address of its network", p)
		}
	}
	return nil
}

// lastOf is the broadcast address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n |= 1<<(32-p.Bits()) - 1
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func unusable(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is empty"
	case a.Zone() != "":
		return "has a zone"
	case a.Is4In6():
		return "is an IPv4 address in IPv6 notation"
	case a.IsUnspecified():
		return "is unspecified"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsMulticast():
		return "is a multicast address"
	case a.IsLinkLocalUnicast():
		return "is link-local, the range of the gateways"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is the broadcast address"
	}
	return ""
}

// checkOverlap refuses networks that two bridges would be the way to.
func (c Config) checkOverlap() error {
	for n, i := range c.Interfaces {
		for _, other := range c.Interfaces[:n] {
			if i.Bridge == "" || other.Bridge == "" {
				continue
			}
			for _, a := range i.Addresses {
				for _, b := range other.Addresses {
					if !a.IsSingleIP() && !b.IsSingleIP() && a.Overlaps(b) {
						return badConfig("the networks of %s on %s and %s on %s overlap: packets would have two ways",
							b, other.Name, a, i.Name)
					}
				}
			}
		}
	}
	return nil
}

// requireIPv6 fails on a host booted with ipv6.disable=1 or without the module:
// the kernel then has no /proc/sys/net/ipv6.
func requireIPv6() error {
	if _, err := os.Stat(sysctlPath("ipv6")); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, ErrNoIPv6)
	}
	return nil
}
