package main

import (
	"net/netip"
	"testing"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/google/go-cmp/cmp"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestRatesAreReadAsTcWritesThem(t *testing.T) {
	for text, want := range map[string]int64{
		"10mbit": 10e6, "1.5gbit": 1.5e9, "500kbit/s": 500e3, "9000bit": 9000, "8Kbitps": 8000, "none": 0, "0": 0, "max": 0,
		"10": -1, "10MB/s": -1, "mbit": -1, "-5mbit": -1, "1e3mbit": -1, "7999bit": -1, "101gbit": -1, "": -1, "0.001bit": -1,
	} {
		got, err := parseRate(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, bits := range []int64{8000, 10e6, 1.5e9, 12345} {
		if got, err := parseRate(bitsText(bits)); err != nil || got != bits {
			t.Errorf("%d is written %s and read %d, %v", bits, bitsText(bits), got, err)
		}
	}
}

func TestForwardsAreReadAsPodmanWritesThem(t *testing.T) {
	local, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::1")
	for text, want := range map[string]*netns.Forward{
		"8080:80":               {Protocol: "tcp", HostPort: 8080, Port: 80},
		"8080:80/udp":           {Protocol: "udp", HostPort: 8080, Port: 80},
		"53/udp":                {Protocol: "udp", HostPort: 53},
		"192.0.2.1:8080:80":     {Protocol: "tcp", HostAddress: local, HostPort: 8080, Port: 80},
		"[::1]:8080:80/tcp":     {Protocol: "tcp", HostAddress: six, HostPort: 8080, Port: 80},
		"192.0.2.1:8080":        {Protocol: "tcp", HostAddress: local, HostPort: 8080},
		"":                      nil,
		"0:80":                  nil,
		"80:65536":              nil,
		"80:":                   nil,
		"1:2:3":                 nil,
		"::1:80:80":             nil,
		"[::1:80:80":            nil,
		"80:80/":                nil,
		"80:80/tcp/udp":         nil,
		"192.0.2.300:80:80":     nil,
		"192.0.2.1:80:80:80":    nil,
		"-1:80":                 nil,
		"[fe80::1%eth0]:80:80/": nil,
	} {
		got, err := parseForward(text)
		if (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		} else if want != nil && got != *want {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestRoutesAreReadAsIPWritesThem(t *testing.T) {
	net, via := netip.MustParsePrefix("10.1.0.0/16"), netip.MustParseAddr("10.0.0.1")
	for text, want := range map[string]*netns.Route{
		"10.1.0.0/16":                          {To: net},
		"10.1.0.0/16,via=10.0.0.1":             {To: net, Via: via},
		"10.1.0.0/16 via 10.0.0.1 metric 50":   {To: net, Via: via, Metric: 50},
		"10.1.0.0/16,metric=50,via=10.0.0.1":   {To: net, Via: via, Metric: 50},
		"192.0.2.7":                            {To: netip.MustParsePrefix("192.0.2.7/32")},
		"":                                     nil,
		",":                                    nil,
		"10.1.0.1/16":                          nil,
		"10.1.0.0/16,via":                      nil,
		"10.1.0.0/16,via=near":                 nil,
		"10.1.0.0/16,metric=0":                 nil,
		"10.1.0.0/16,dev=eth0":                 nil,
		"default via 10.0.0.1":                 nil,
		"10.1.0.0/16 via 10.0.0.1 metric many": nil,
	} {
		got, err := parseRoute(text)
		if (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		} else if diff := cmp.Diff(want, &got, byValue); want != nil && diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestInterfacesAreReadInBothSpellings(t *testing.T) {
	for text, want := range map[string]*netns.Interface{
		"name=eth1,bridge=br1": {Name: "eth1", Bridge: "br1"},
		"eth1":                 {Name: "eth1"},
		"nat,ip=10.0.0.5":      {NAT: true, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}},
		"eth1,bridge=none,mtu=1400,gateway=10.0.0.1": {
			Name: "eth1", MTU: 1400, Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		},
		"eth1,02:00:5E:10:00:01,veth101.1,02:00:5e:10:00:02,br1": {Name: "eth1", MAC: "02:00:5e:10:00:01", Bridge: "br1"},
		"eth1,,,,br1":                          {Name: "eth1", Bridge: "br1"},
		"eth1,02:00:5e:10:00:01":               {Name: "eth1", MAC: "02:00:5e:10:00:01"},
		"eth1,nonsense":                        nil,
		"eth1,02:00:5e:10:00:01,a,b,br1,more":  nil,
		"name=eth1,colour=red":                 nil,
		"name=eth1,ip=127.0.0.1":               nil,
		"name=eth1,mtu=0":                      nil,
		"name=eth1,gateway=nobody":             nil,
		"name=eth1,mac=ff:ff:ff:ff:ff:ff":      nil,
		"name=eth1,ip=10.0.0.5/24,ip=10.0.0.x": nil,
	} {
		got, err := parseNIC(text)
		if (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		} else if diff := cmp.Diff(want, &got, byValue); want != nil && diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestAnAddressAloneOnABridgeIsNoted(t *testing.T) {
	network := func(bridge string, addresses ...string) (n container.Network) {
		i := netns.Interface{Name: "eth0", Bridge: bridge}
		for _, a := range addresses {
			i.Addresses = append(i.Addresses, netip.MustParsePrefix(a))
		}
		n.Interfaces = []netns.Interface{i}
		return n
	}
	tests := map[string]struct {
		before, after container.Network
		want          int
	}{
		"routed":                {network(""), network("", "10.0.0.5/32"), 0},
		"with its network":      {network("br0"), network("br0", "10.0.0.5/24"), 0},
		"alone":                 {network("br0"), network("br0", "10.0.0.5/32", "2001:db8::5/128"), 2},
		"a second one":          {network("br0", "10.0.0.5/24"), network("br0", "10.0.0.5/24", "10.0.0.6/32"), 0},
		"alone before as well":  {network("br0", "10.0.0.5/32"), network("br0", "10.0.0.5/32"), 0},
		"of another network":    {network("br0", "10.0.0.5/24"), network("br0", "10.0.0.5/24", "10.9.0.6/32"), 1},
		"of an interface added": {container.Network{}, network("br0", "10.0.0.5/32"), 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := lonely(tt.before, tt.after); len(got) != tt.want {
				t.Errorf("got %q, want %d", got, tt.want)
			}
		})
	}
}
