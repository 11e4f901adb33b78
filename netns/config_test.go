package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadConfigIsRefusedWithItsReason(t *testing.T) {
	good := config(1, "10.9.0.5/24")
	for name, test := range map[string]struct {
		change func(*pair)
		reason string
	}{
		"long name":         {func(c *pair) { c.Name = "ct0123456789abcd" }, "link name"},
		"foreign name":      {func(c *pair) { c.Name = "eth0" }, "link name"},
		"upper case":        {func(c *pair) { c.Name = "ct0123456789AB" }, "link name"},
		"no address of ct":  {func(c *pair) { c.MAC = nil }, "container's hardware address is missing"},
		"no host address":   {func(c *pair) { c.HostMAC = nil }, "host's hardware address is missing"},
		"long address":      {func(c *pair) { c.MAC = make(net.HardwareAddr, 8) }, "not 6 bytes"},
		"group address":     {func(c *pair) { c.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, "group"},
		"zero address":      {func(c *pair) { c.HostMAC = make(net.HardwareAddr, 6) }, "zero"},
		"same addresses":    {func(c *pair) { c.HostMAC = c.MAC }, "both ends"},
		"small MTU":         {func(c *pair) { c.MTU = 67 }, "MTU 67"},
		"small MTU of IPv6": {func(c *pair) { *c = config(1, "fd09::5/64"); c.MTU = 1279 }, "between 1280 and"},
		"big MTU":           {func(c *pair) { c.MTU = 65536 }, "MTU 65536"},
		"negative MTU":      {func(c *pair) { c.MTU = -1 }, "MTU -1"},
		"empty address":     {func(c *pair) { c.Addresses = []netip.Prefix{{}} }, "is empty"},
		"twice":             {func(c *pair) { *c = config(1, "10.9.0.5/24", "10.9.0.5/32") }, "given twice"},
		"multicast":         {func(c *pair) { *c = config(1, "224.0.0.1/32") }, "multicast"},
		"multicast of IPv6": {func(c *pair) { *c = config(1, "ff02::1/128") }, "multicast"},
		"loopback":          {func(c *pair) { *c = config(1, "127.0.0.2/8") }, "loopback"},
		"loopback of IPv6":  {func(c *pair) { *c = config(1, "::1/128") }, "loopback"},
		"unspecified":       {func(c *pair) { *c = config(1, "0.0.0.0/0") }, "unspecified"},
		"link-local":        {func(c *pair) { *c = config(1, "169.254.7.7/16") }, "link-local"},
		"broadcast":         {func(c *pair) { *c = config(1, "255.255.255.255/32") }, "broadcast"},
		"IPv4 in IPv6":      {func(c *pair) { *c = config(1, "::ffff:10.0.0.1/128") }, "IPv6 notation"},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Addresses = append(c.Addresses[:0:0], c.Addresses...)
			test.change(&c)
			for op, err := range map[string]error{
				"attach": attach(context.Background(), os.Getpid(), c),
				"join":   join(context.Background(), c),
			} {
				if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.reason) {
					t.Errorf("%s: want %q, got %v", op, test.reason, err)
				}
			}
		})
	}
	if err := good.check(); err != nil {
		t.Errorf("good config: %v", err)
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

func TestIPv6AddressIsRefusedWhenTheHostHasNoIPv6(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "ipv4"), 0o755); err != nil {
		t.Fatal(err)
	}
	was := procSysNet
	procSysNet = dir
	defer func() { procSysNet = was }()
	err := attach(context.Background(), os.Getpid(), config(1, "10.9.0.5/24", "fd09::5/64"))
	if !errors.Is(err, ErrNoIPv6) || !errors.Is(err, ErrConfig) {
		t.Errorf("got %v", err)
	}
	if err := config(1, "10.9.0.5/24").check(); err != nil {
		t.Errorf("IPv4 alone: %v", err)
	}
}
