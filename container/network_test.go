package container

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/netns"
)

func TestThereAreAsManyInterfacesAsTheHostHasNamesFor(t *testing.T) {
	c := valid()
	c.Network = Network{}
	for range netns.MaxInterfaces {
		if err := c.Network.AddInterface(netns.Interface{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.netConfig().Validate(); err != nil {
		t.Errorf("%d interfaces: %v", netns.MaxInterfaces, err)
	}
	if err := c.Network.AddInterface(netns.Interface{}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "36 interfaces") {
		t.Errorf("one more: got %v", err)
	}
}

func TestAnInterfaceThatIsNotThereIsNamedWhateverIsAskedOfIt(t *testing.T) {
	address, to := netip.MustParsePrefix("10.0.0.9/32"), netip.MustParsePrefix("198.51.100.0/24")
	for name, edit := range map[string]func(*Network) error{
		"add an address":    func(n *Network) error { return n.AddAddress("lan0", address) },
		"remove an address": func(n *Network) error { return n.RemoveAddress("lan0", address.Addr()) },
		"add a route":       func(n *Network) error { return n.AddRoute("lan0", netns.Route{To: to}) },
		"remove a route":    func(n *Network) error { return n.RemoveRoute("lan0", to) },
		"set a gateway":     func(n *Network) error { return n.SetGateway("lan0", address.Addr()) },
		"remove it":         func(n *Network) error { return n.RemoveInterface("lan0") },
	} {
		c := valid()
		if err := edit(&c.Network); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "no interface lan0, but [eth0]") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
