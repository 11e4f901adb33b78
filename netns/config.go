package netns

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
)

const (
	// containerLink is the name of the link inside the container.
	containerLink = "eth0"
	// minIPv6MTU is the smallest MTU IPv6 may run on (RFC 8200, section 5).
	minIPv6MTU = 1280
	// minIPv4MTU is the smallest MTU IPv4 may run on (RFC 791).
	minIPv4MTU = 68
	maxMTU     = 65535
)

var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")

	linkName = regexp.MustCompile(`^ct[0-9a-f]{12}$`)
)

// pair is one routed interface and its host end.
type pair struct {
	// Name is the host's link: "ct" and twelve lower-case hexadecimal digits.
	Name string
	// MAC is the address of the container's eth0, HostMAC the one of the host's
	// link. Both are required, so that they outlive a restore.
	MAC, HostMAC net.HardwareAddr
	// Addresses are the container's own. Each becomes a /32 or /128, whatever
	// its prefix length says. A family without an address gets no default route.
	Addresses []netip.Prefix
	// MTU of both ends in bytes, 0 means the kernel's default of 1500.
	MTU int
	// NAT hides the container's addresses behind the host's when its packets
	// leave the host, and turns on forwarding host-wide.
	NAT bool
	// Log is told which host-wide settings Join changed, with their values
	// before. nil discards.
	Log *slog.Logger `json:"-"`
}

// MACFor returns the hardware addresses of both ends of a container's link
// number index: locally administered, unicast, and the same on every host,
// derived from SHA-256 of "uid/index/end".
func MACFor(uid string, index int) (container, host net.HardwareAddr) {
	return macOf(uid, index, "container"), macOf(uid, index, "host")
}

func macOf(uid string, index int, end string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(uid + "/" + strconv.Itoa(index) + "/" + end))
	mac := net.HardwareAddr(sum[:6:6])
	mac[0] = mac[0]&^1 | 2 // IEEE 802: bit 0 group, bit 1 locally administered
	return mac
}

func badConfig(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
}

// check refuses what Attach and Join could not set up.
func (c pair) check() error {
	if err := c.checkNames(); err != nil {
		return err
	}
	if err := checkMAC("container's hardware address", c.MAC); err != nil {
		return err
	}
	if err := checkMAC("host's hardware address", c.HostMAC); err != nil {
		return err
	}
	if c.MAC.String() == c.HostMAC.String() {
		return badConfig("both ends have the hardware address %s", c.MAC)
	}
	if err := c.checkMTU(); err != nil {
		return err
	}
	if c.hasIPv6() {
		return requireIPv6()
	}
	return nil
}

// checkNames checks only what taking a connection down needs.
func (c pair) checkNames() error {
	if !linkName.MatchString(c.Name) {
		return badConfig("link name %q is not \"ct\" and twelve hexadecimal digits", c.Name)
	}
	seen := make(map[netip.Addr]bool, len(c.Addresses))
	for _, p := range c.Addresses {
		a := p.Addr()
		if reason := unusable(a); reason != "" {
			return badConfig("address %s %s", p, reason)
		}
		if seen[a] {
			return badConfig("address %s is given twice", a)
		}
		seen[a] = true
	}
	return nil
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

func checkMAC(what string, mac net.HardwareAddr) error {
	switch {
	case len(mac) == 0:
		return badConfig("the %s is missing", what)
	case len(mac) != 6:
		return badConfig("the %s %s is not 6 bytes long", what, mac)
	case mac[0]&1 != 0:
		return badConfig("the %s %s is a group address", what, mac)
	case mac.String() == "00:00:00:00:00:00":
		return badConfig("the %s is zero", what)
	}
	return nil
}

func (c pair) checkMTU() error {
	least := minIPv4MTU
	if c.hasIPv6() {
		least = minIPv6MTU
	}
	if c.MTU != 0 && (c.MTU < least || c.MTU > maxMTU) {
		return badConfig("MTU %d is not between %d and %d", c.MTU, least, maxMTU)
	}
	return nil
}

func (c pair) addrs() []netip.Addr {
	out := make([]netip.Addr, 0, len(c.Addresses))
	for _, p := range c.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

func (c pair) hasIPv4() bool { return hasFamily(c.Addresses, netip.Addr.Is4) }
func (c pair) hasIPv6() bool { return hasFamily(c.Addresses, netip.Addr.Is6) }

func hasFamily(prefixes []netip.Prefix, is func(netip.Addr) bool) bool {
	for _, p := range prefixes {
		if is(p.Addr()) {
			return true
		}
	}
	return false
}

// requireIPv6 fails on a host booted with ipv6.disable=1 or without the module:
// the kernel then has no /proc/sys/net/ipv6.
func requireIPv6() error {
	if _, err := os.Stat(sysctlPath("ipv6")); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, ErrNoIPv6)
	}
	return nil
}

func (c pair) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}
