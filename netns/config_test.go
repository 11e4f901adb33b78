package netns

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bridged is an interface on a bridge.
func bridged(name string, index int, bridge string, addresses ...string) Interface {
	return Interface{Name: name, Index: index, Bridge: bridge, Addresses: prefixes(addresses...)}
}

func route(to, via string) Route {
	r := Route{To: netip.MustParsePrefix(to)}
	if via != "" {
		r.Via = netip.MustParseAddr(via)
	}
	return r
}

// refusal is a change of a good configuration, and what it is refused for.
type refusal struct {
	change func(*Config)
	reason string
}

func withFirst(change func(*Interface)) func(*Config) {
	return func(c *Config) { change(&c.Interfaces[0]) }
}

func withAddresses(addresses ...string) func(*Config) {
	return withFirst(func(i *Interface) { i.Addresses = prefixes(addresses...) })
}

func withBridge(change func(*Interface), addresses ...string) func(*Config) {
	return withFirst(func(i *Interface) {
		*i = bridged("eth0", 0, "br0", addresses...)
		if change != nil {
			change(i)
		}
	})
}

func withGateways(addresses ...string) func(*Interface) {
	return func(i *Interface) {
		for _, a := range addresses {
			i.Gateways = append(i.Gateways, netip.MustParseAddr(a))
		}
	}
}

func withRoutes(r ...Route) func(*Interface) { return func(i *Interface) { i.Routes = r } }

func withInterface(i Interface) func(*Config) {
	return func(c *Config) { c.Interfaces = append(c.Interfaces, i) }
}

func withForwards(f ...Forward) func(*Config) { return func(c *Config) { c.Forwards = f } }

// badLinks are refused for a name, an index or a hardware address.
var badLinks = map[string]refusal{
	"long uid":          {func(c *Config) { c.UID = "0123456789abcdef0" }, "uid"},
	"upper case":        {func(c *Config) { c.UID = "0123456789ABCDEF" }, "uid"},
	"no name":           {withFirst(func(i *Interface) { i.Name = "" }), "name"},
	"long name":         {withFirst(func(i *Interface) { i.Name = "sixteenletters16" }), "longer than 15"},
	"slash in the name": {withFirst(func(i *Interface) { i.Name = "a/b" }), "name"},
	"blank in the name": {withFirst(func(i *Interface) { i.Name = "a b" }), "name"},
	"dots":              {withFirst(func(i *Interface) { i.Name = ".." }), "name"},
	"lo":                {withFirst(func(i *Interface) { i.Name = "lo" }), "kernel's own"},
	"long bridge":       {withFirst(func(i *Interface) { i.Bridge = "sixteenletters16" }), "bridge"},
	"low index":         {withFirst(func(i *Interface) { i.Index = -1 }), "index -1"},
	"high index":        {withFirst(func(i *Interface) { i.Index = 36 }), "index 36"},
	"same name":         {withInterface(Interface{Name: "eth0", Index: 1}), "name eth0 is given twice"},
	"same index":        {withInterface(Interface{Name: "eth1"}), "index 0 is given twice, to eth0 too"},
	"malformed MAC":     {withFirst(func(i *Interface) { i.MAC = "00:11" }), "hardware address"},
	"long MAC":          {withFirst(func(i *Interface) { i.MAC = "02:00:00:00:00:00:00:01" }), "not 6 bytes"},
	"group MAC":         {withFirst(func(i *Interface) { i.MAC = "01:00:00:00:00:01" }), "group"},
	"zero MAC":          {withFirst(func(i *Interface) { i.MAC = "00:00:00:00:00:00" }), "zero"},
	"the host's MAC":    {withFirst(func(i *Interface) { i.MAC = macs(config(1), 1) }), "host's end"},
	"same MAC":          {withInterface(Interface{Name: "eth1", Index: 1, MAC: macs(config(1), 0)}), "given twice"},
}

// badAddresses are refused for an address, or a size.
var badAddresses = map[string]refusal{
	"small MTU":         {withFirst(func(i *Interface) { i.MTU = 67 }), "MTU 67"},
	"small MTU of IPv6": {func(c *Config) { *c = config(1, "fd09::5/64"); c.Interfaces[0].MTU = 1279 }, "between 1280 and"},
	"big MTU":           {withFirst(func(i *Interface) { i.MTU = 65536 }), "MTU 65536"},
	"negative MTU":      {withFirst(func(i *Interface) { i.MTU = -1 }), "MTU -1"},
	"negative rate":     {withFirst(func(i *Interface) { i.Rate.EgressBits = -1 }), "rate"},
	"empty address":     {withFirst(func(i *Interface) { i.Addresses = []netip.Prefix{{}} }), "is empty"},
	"twice":             {withAddresses("10.9.0.5/24", "10.9.0.5/32"), "address 10.9.0.5 is given twice"},
	"on two interfaces": {withInterface(Interface{Name: "eth1", Index: 1, Addresses: prefixes("10.9.0.5/24")}), "to eth0 too"},
	"no length":         {withAddresses("10.9.0.5/0"), "prefix length"},
	"multicast":         {withAddresses("224.0.0.1/32"), "multicast"},
	"multicast of IPv6": {withAddresses("ff02::1/128"), "multicast"},
	"loopback":          {withAddresses("127.0.0.2/8"), "loopback"},
	"loopback of IPv6":  {withAddresses("::1/128"), "loopback"},
	"unspecified":       {withAddresses("0.0.0.0/0"), "unspecified"},
	"link-local":        {withAddresses("169.254.7.7/16"), "link-local"},
	"broadcast":         {withAddresses("255.255.255.255/32"), "broadcast"},
	"IPv4 in IPv6":      {withAddresses("::ffff:10.0.0.1/128"), "IPv6 notation"},
}

// badRoutes are refused for networks, routers and ports.
var badRoutes = map[string]refusal{
	"network's address":   {withBridge(nil, "10.9.0.0/24"), "that of its network"},
	"ctctl0's own":        {withBridge(func(i *Interface) { i.Bridge = OwnBridge }, "10.158.0.1/16"), "of the bridge"},
	"network's broadcast": {withBridge(nil, "10.9.0.255/24"), "broadcast address of its network"},
	"same bridge":         {func(c *Config) { c.Interfaces = []Interface{bridged("a", 0, "br0"), bridged("b", 1, "br0")} }, "bridge br0 is given twice"},
	"overlapping networks": {func(c *Config) {
		c.Interfaces = []Interface{bridged("a", 0, "br0", "10.9.0.5/16"), bridged("b", 1, "br1", "10.9.1.5/24")}
	}, "overlap"},
	"gateway when routed":   {withFirst(withGateways("10.9.0.1")), "routed interface has the host"},
	"unreachable gateway":   {withBridge(withGateways("10.8.0.1"), "10.9.0.5/24"), "no address of the interface"},
	"gateway of other IP":   {withBridge(withGateways("fd09::1"), "10.9.0.5/24"), "no address of the interface"},
	"link-local, no IPv6":   {withBridge(withGateways("fe80::1"), "10.9.0.5/24"), "no address of the interface"},
	"own gateway":           {withBridge(withGateways("10.9.0.5"), "10.9.0.5/24"), "own address"},
	"two gateways":          {withBridge(withGateways("10.9.0.1", "10.9.0.2"), "10.9.0.5/24"), "only one"},
	"empty gateway":         {withBridge(func(i *Interface) { i.Gateways = make([]netip.Addr, 1) }, "10.9.0.5/24"), "router"},
	"empty route":           {withFirst(withRoutes(Route{})), "destination is not a network"},
	"host bits":             {withFirst(withRoutes(route("10.1.2.3/16", ""))), "did you mean 10.1.0.0/16"},
	"route of other IP":     {withFirst(withRoutes(route("fd01::/64", ""))), "no address of that IP version"},
	"multicast route":       {withFirst(withRoutes(route("224.0.0.0/4", ""))), "not a network of hosts"},
	"negative metric":       {withFirst(withRoutes(Route{To: netip.MustParsePrefix("10.1.0.0/16"), Metric: -1})), "metric -1"},
	"second default":        {withFirst(withRoutes(route("0.0.0.0/0", ""))), "default route already"},
	"router when routed":    {withFirst(withRoutes(route("10.1.0.0/16", "10.9.0.1"))), "leave out via"},
	"unreachable router":    {withBridge(withRoutes(route("10.1.0.0/16", "10.8.0.1")), "10.9.0.5/24"), "no address of the interface"},
	"router of other IP":    {withBridge(withRoutes(route("10.1.0.0/16", "fd09::1")), "10.9.0.5/24"), "IP version"},
	"same route":            {withFirst(withRoutes(route("10.1.0.0/16", ""), route("10.1.0.0/16", ""))), "given twice"},
	"protocol":              {withForwards(Forward{Protocol: "sctp", HostPort: 1, Port: 1}), "neither tcp nor udp"},
	"no port":               {withForwards(Forward{Protocol: "tcp", HostPort: 1}), "no port 0"},
	"same port":             {withForwards(Forward{Protocol: "tcp", HostPort: 1, Port: 1}, Forward{Protocol: "tcp", HostPort: 1, Port: 2}), "forwarded twice"},
	"nothing to forward to": {withForwards(Forward{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("2001:db8::1")}), "no address of that IP version"},
	"listen nowhere":        {withForwards(Forward{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.IPv4Unspecified()}), "no address that a host can be reached at"},
}

func TestBadConfigIsRefusedWithItsReason(t *testing.T) {
	all := maps.Clone(badLinks)
	maps.Copy(all, badAddresses)
	maps.Copy(all, badRoutes)
	for name, test := range all {
		t.Run(name, func(t *testing.T) {
			c := config(1, "10.9.0.5/24")
			test.change(&c)
			for op, err := range map[string]error{
				"validate": c.Validate(),
				"attach":   Attach(context.Background(), os.Getpid(), c),
				"join":     Join(context.Background(), c),
			} {
				if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("%s: want %q, got %v", op, test.reason, err)
				}
			}
		})
	}
}

func TestGoodConfigIsTaken(t *testing.T) {
	lan := bridged("eth1", 35, "br0", "10.9.1.5/24", "10.9.1.6/24", "10.9.1.7/32", "fd09::5/64", "10.9.2.1/31")
	lan.Gateways = []netip.Addr{netip.MustParseAddr("10.9.1.1"), netip.MustParseAddr("fe80::7")}
	lan.Routes = []Route{route("10.1.0.0/16", "10.9.1.2"), route("10.2.0.0/16", ""), route("fd02::/64", "fe80::8")}
	plain := Interface{Name: "eth0", Addresses: prefixes("10.9.0.5/24"), Routes: []Route{route("10.3.0.0/16", "")}}
	tcp := Forward{Protocol: "tcp", HostPort: 8080, Port: 80}
	udp := Forward{Protocol: "udp", HostPort: 8080, Port: 80, HostAddress: netip.MustParseAddr("192.0.2.1")}
	for name, c := range map[string]Config{
		"nothing": {UID: "0123456789abcdef"},
		"much":    {UID: "0123456789abcdef", Interfaces: []Interface{plain, lan}, Forwards: []Forward{tcp, udp}},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHardwareAddressesAreStable(t *testing.T) {
	container, host := MACFor("0123456789abcdef", 0)
	// Changing these takes the addresses of existing containers away.
	if got := container.String() + " " + host.String(); got != "fe:c5:c4:74:74:9b f6:8a:1c:3c:86:e9" {
		t.Errorf("got %s", got)
	}
	seen := map[string]bool{}
	for _, uid := range []string{"0123456789abcdef", "fedcba9876543210"} {
		for index := range 3 {
			a, b := MACFor(uid, index)
			for _, mac := range []net.HardwareAddr{a, b} {
				if seen[mac.String()] {
					t.Errorf("%s is not unique", mac)
				}
				seen[mac.String()] = true
				if mac[0]&3 != 2 {
					t.Errorf("%s is not a locally administered unicast address", mac)
				}
			}
		}
	}
}

func TestLinkNamesLeadBackToTheIndex(t *testing.T) {
	c := config(1)
	for index := range maxIndex + 1 {
		name := c.hostLink(index)
		if got, ok := c.indexOf(name); !ok || got != index || !linkPattern.MatchString(name) {
			t.Errorf("%s: got %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "ct0", "ct0000000000010", "ct00000000000111", config(2).hostLink(0), "ct000000000001Z"} {
		if got, ok := c.indexOf(name); ok {
			t.Errorf("%s is number %d", name, got)
		}
	}
}

func TestIPv6AddressIsRefusedWhenTheHostHasNoIPv6(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ipv4"), 0o755); err != nil {
		t.Fatal(err)
	}
	was := procSysNet
	procSysNet = dir
	defer func() { procSysNet = was }()
	err := Prepare(context.Background(), config(1, "10.9.0.5/24", "fd09::5/64"))
	if !errors.Is(err, ErrNoIPv6) || !errors.Is(err, ErrConfig) {
		t.Errorf("got %v", err)
	}
}
