package container

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ctctl/ctctl/netns"
)

// What Change.Edit can do to the network. Asking for what is so already is no
// error, as scripts do; asking to remove what is not there is.

// Interface finds one by its name inside; "" is the first. ErrConfig if there is
// none.
func (n *Network) Interface(name string) (*netns.Interface, error) {
	if name == "" && len(n.Interfaces) > 0 {
		return &n.Interfaces[0], nil
	}
	var names []string
	for i := range n.Interfaces {
		if n.Interfaces[i].Name == name {
			return &n.Interfaces[i], nil
		}
		names = append(names, n.Interfaces[i].Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: it has no interface; add one first", ErrConfig)
	}
	return nil, fmt.Errorf("%w: it has no interface %s, but %v", ErrConfig, name, names)
}

// AddInterface adds one with a free number. A name that is missing becomes the
// first free one of eth0, eth1, ….
func (n *Network) AddInterface(i netns.Interface) error {
	used := map[int]bool{}
	names := map[string]bool{}
	for _, o := range n.Interfaces {
		used[o.Index], names[o.Name] = true, true
	}
	for k := 0; i.Name == ""; k++ {
		if name := fmt.Sprintf("eth%d", k); !names[name] {
			i.Name = name
		}
	}
	if names[i.Name] {
		return fmt.Errorf("%w: it has an interface %s already", ErrConfig, i.Name)
	}
	for i.Index = 0; used[i.Index]; i.Index++ {
		if i.Index == netns.MaxInterfaces-1 {
			return fmt.Errorf("%w: it has %d interfaces, the most there can be", ErrConfig, netns.MaxInterfaces)
		}
	}
	n.Interfaces = append(n.Interfaces, i)
	return nil
}

// RemoveInterface removes one.
func (n *Network) RemoveInterface(name string) error {
	i, err := n.Interface(name)
	if err != nil {
		return err
	}
	n.Interfaces = slices.DeleteFunc(n.Interfaces, func(o netns.Interface) bool { return o.Name == i.Name })
	return nil
}

// AddAddress gives an interface an address; one that it has gets the prefix length.
func (n *Network) AddAddress(link string, p netip.Prefix) error {
	i, err := n.Interface(link)
	if err != nil {
		return err
	}
	for k, have := range i.Addresses {
		if have.Addr() == p.Addr() {
			i.Addresses[k] = p
			return nil
		}
	}
	i.Addresses = append(i.Addresses, p)
	return nil
}

// RemoveAddress takes an address away from an interface; link "" is whichever has it.
func (n *Network) RemoveAddress(link string, a netip.Addr) error {
	if link != "" {
		if _, err := n.Interface(link); err != nil {
			return err
		}
	}
	for k := range n.Interfaces {
		i := &n.Interfaces[k]
		at := slices.IndexFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
		if at >= 0 && (link == "" || i.Name == link) {
			i.Addresses = slices.Delete(i.Addresses, at, at+1)
			return nil
		}
	}
	return fmt.Errorf("%w: it has no address %s", ErrConfig, a)
}

// SetGateway makes a the default router of its IP version.
func (n *Network) SetGateway(link string, a netip.Addr) error {
	i, err := n.Interface(link)
	if err != nil {
		return err
	}
	i.Gateways = slices.DeleteFunc(i.Gateways, func(o netip.Addr) bool { return o.Is4() == a.Is4() })
	i.Gateways = append(i.Gateways, a)
	return nil
}

// AddRoute adds a route, or changes the one with the same destination.
func (n *Network) AddRoute(link string, r netns.Route) error {
	i, err := n.Interface(link)
	if err != nil {
		return err
	}
	for k, have := range i.Routes {
		if have.To == r.To {
			i.Routes[k] = r
			return nil
		}
	}
	i.Routes = append(i.Routes, r)
	return nil
}

// RemoveRoute removes the route to a destination; link "" is whichever has it.
func (n *Network) RemoveRoute(link string, to netip.Prefix) error {
	if link != "" {
		if _, err := n.Interface(link); err != nil {
			return err
		}
	}
	for k := range n.Interfaces {
		i := &n.Interfaces[k]
		at := slices.IndexFunc(i.Routes, func(r netns.Route) bool { return r.To == to })
		if at >= 0 && (link == "" || i.Name == link) {
			i.Routes = slices.Delete(i.Routes, at, at+1)
			return nil
		}
	}
	return fmt.Errorf("%w: it has no route to %s", ErrConfig, to)
}

// Publish forwards a port of the host; one that is forwarded already goes to the
// new port.
func (n *Network) Publish(f netns.Forward) {
	for k, have := range n.Forwards {
		if have.Protocol == f.Protocol && have.HostPort == f.HostPort && have.HostAddress == f.HostAddress {
			n.Forwards[k] = f
			return
		}
	}
	n.Forwards = append(n.Forwards, f)
}

// Unpublish ends a forward, told by the host's side.
func (n *Network) Unpublish(f netns.Forward) error {
	before := len(n.Forwards)
	n.Forwards = slices.DeleteFunc(n.Forwards, func(have netns.Forward) bool {
		return have.Protocol == f.Protocol && have.HostPort == f.HostPort && have.HostAddress == f.HostAddress
	})
	if len(n.Forwards) == before {
		return fmt.Errorf("%w: port %d/%s is not published", ErrConfig, f.HostPort, f.Protocol)
	}
	return nil
}
