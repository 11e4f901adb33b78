package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/urfave/cli/v2"
)

// linkFlags are the same for create and set.
func linkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "nic-add", Aliases: []string{"netif_add"}, Usage: "add an interface with `SETTINGS`, parted by commas: name=eth1, bridge=br1, ip=192.0.2.5/24, gateway=192.0.2.1, mac=…, mtu=…, nat; without a bridge it is routed; may be repeated"},
		&cli.StringFlag{Name: "nic", Usage: "the other flags are about the interface `NAME` (default: the first)"},
		&cli.StringFlag{Name: "bridge", Usage: "make it a port of the host's `BRIDGE`; none: routed"},
		&cli.StringSliceFlag{Name: "gateway", Usage: "default router `ADDRESS` of a bridged interface, one for IPv4 and one for IPv6, or none"},
		&cli.StringSliceFlag{Name: "route", Usage: "add a `ROUTE` like 10.1.0.0/16,via=10.0.0.1 with metric=50 if wanted; may be repeated"},
		&cli.StringSliceFlag{Name: "dns", Aliases: []string{"nameserver"}, Usage: "name server `ADDRESS`; those given replace those there were, none: the host's; may be repeated"},
		&cli.StringSliceFlag{Name: "search", Aliases: []string{"searchdomain"}, Usage: "look short names up in `DOMAIN`; as --dns"},
		&cli.StringFlag{Name: "mtu", Usage: "largest packet in `BYTES`; default: the bridge's, or 1500"},
		&cli.StringFlag{Name: "mac", Usage: "hardware `ADDRESS`; default: one that stays the same for ever"},
		&cli.StringFlag{Name: "rate-egress", Usage: "send at most that `RATE`: 10mbit, 1gbit"},
		&cli.StringFlag{Name: "rate-ingress", Usage: "receive at most that `RATE`"},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "forward a port of the host, `PORTS` like 8080:80, 8080:80/udp or 192.0.2.1:8080:80; may be repeated"},
		&cli.BoolFlag{Name: "isolate", Usage: "let nothing in or out; --isolate=false ends it"},
		&cli.BoolFlag{Name: "nat", Usage: "hide its addresses behind the host's towards the outside; --nat=false ends it"},
		&cli.BoolFlag{Name: "no-filter", Usage: "let it send from addresses that are not its own; --no-filter=false ends it"},
		&cli.BoolFlag{Name: "no-probe", Usage: "don't ask the network whether somebody has a new address"},
	}
}

func networkFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringSliceFlag{Name: "ip-add", Aliases: []string{"ipadd"}, Usage: "add `ADDRESS` like 192.0.2.5 or 2001:db8::5/64; may be repeated"},
		&cli.StringSliceFlag{Name: "ip-del", Aliases: []string{"ipdel"}, Usage: "remove `ADDRESS`, or all; may be repeated"},
		&cli.StringSliceFlag{Name: "ip-set", Usage: "have these `ADDRESSES` and no others, in one step; may be repeated"},
		&cli.StringSliceFlag{Name: "nic-del", Aliases: []string{"netif_del"}, Usage: "remove the interface `NAME`; may be repeated"},
		&cli.StringSliceFlag{Name: "route-del", Usage: "remove the route to `PREFIX`; may be repeated"},
		&cli.StringSliceFlag{Name: "unpublish", Usage: "end a forward, `PORTS` as it was published, or HOSTPORT/PROTOCOL; may be repeated"},
		&cli.StringFlag{Name: "hostname", Usage: "host `NAME` inside"},
	}, linkFlags()...)
}

// The network's flags in the order in which they take effect: what makes an
// interface first, what takes away before what adds.
var networkParsers = []struct {
	flag string
	read func(c *cli.Context, value string) (func(n *container.Network, link string) error, error)
}{
	{"nic-del", readNICDel},
	{"nic-add", readNICAdd},
	{"bridge", linkSetting(readBridge, func(i *netns.Interface, v string) { i.Bridge = v })},
	{"mac", linkSetting(readMAC, func(i *netns.Interface, v string) { i.MAC = v })},
	{"mtu", linkSetting(readMTU, func(i *netns.Interface, v int) { i.MTU = v })},
	{"rate-egress", linkSetting(parseRate, func(i *netns.Interface, v int64) { i.Rate.EgressBits = v })},
	{"rate-ingress", linkSetting(parseRate, func(i *netns.Interface, v int64) { i.Rate.IngressBits = v })},
	{"ip-del", readIPDel},
	{"ip-add", readIPAdd},
	{"gateway", readGateway},
	{"route-del", readRouteDel},
	{"route", readRoute},
	{"unpublish", readUnpublish},
	{"publish", readPublish},
}

// networkEdits reads the flags of networkFlags.
func networkEdits(c *cli.Context) (e edits, err error) {
	link := c.String("nic")
	for _, p := range networkParsers {
		for _, v := range valuesOf(c, p.flag) {
			change, err := p.read(c, v)
			if err != nil {
				return nil, misuse(c, "--%s: %v", p.flag, err)
			}
			e = append(e, func(cfg *container.Config) error { return change(&cfg.Network, link) })
		}
		if p.flag == "mtu" && c.IsSet("ip-set") {
			set, err := ipSet(c, link)
			if err != nil {
				return nil, err
			}
			e = append(e, set)
		}
	}
	for flag, set := range map[string]func(*netns.Interface, bool){
		"nat": func(i *netns.Interface, on bool) { i.NAT = on }, "no-filter": func(i *netns.Interface, on bool) { i.NoFilter = on },
	} {
		if !c.IsSet(flag) {
			continue
		}
		on := c.Bool(flag)
		e = append(e, func(cfg *container.Config) error {
			i, err := cfg.Network.Interface(link)
			if err == nil {
				set(i, on)
			}
			return err
		})
	}
	if c.IsSet("isolate") {
		on := c.Bool("isolate")
		e = append(e, func(cfg *container.Config) error { cfg.Network.Isolated = on; return nil })
	}
	names, err := nameEdits(c)
	e = append(e, names...)
	if c.IsSet("nic") && len(e) == 0 {
		return nil, misuse(c, "--nic says which interface another flag is about; there is none")
	}
	return e, err
}

// nameEdits are those of names: the container's own, and who knows those of others.
func nameEdits(c *cli.Context) (e edits, err error) {
	if c.IsSet("dns") {
		words, err := listOf(c, "dns")
		if err != nil {
			return nil, err
		}
		var servers []netip.Addr
		for _, v := range words {
			a, err := netip.ParseAddr(v)
			if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
				return nil, misuse(c, "--dns: %s is no address of a name server", quoteWord(v))
			}
			servers = append(servers, a)
		}
		e = append(e, func(cfg *container.Config) error { cfg.Network.DNS = servers; return nil })
	}
	if c.IsSet("search") {
		domains, err := listOf(c, "search")
		if err != nil {
			return nil, err
		}
		e = append(e, func(cfg *container.Config) error { cfg.Network.Search = domains; return nil })
	}
	if c.IsSet("hostname") && c.Command.Name == "set" {
		name := c.String("hostname")
		e = append(e, func(cfg *container.Config) error { cfg.Hostname = name; return nil })
	}
	return e, nil
}

// listOf are the values of a flag that replaces a list; none alone empties it. Spaces
// part values, as in vzctl.
func listOf(c *cli.Context, flag string) ([]string, error) {
	words := strings.Fields(strings.Join(c.StringSlice(flag), " "))
	switch {
	case len(words) == 0: // a variable of a script that is not set
		return nil, misuse(c, "--%s: is empty; none takes all of them away", flag)
	case slices.Equal(words, []string{"none"}):
		return nil, nil
	case slices.Contains(words, "none"):
		return nil, misuse(c, "--%s: none stands alone", flag)
	}
	return words, nil
}

func valuesOf(c *cli.Context, flag string) []string {
	switch v := c.Value(flag).(type) {
	case cli.StringSlice:
		return v.Value()
	case string:
		if c.IsSet(flag) {
			return []string{v}
		}
	}
	return nil
}

// linkSetting is a flag that sets a field of an interface.
func linkSetting[T any](parse func(string) (T, error), set func(*netns.Interface, T)) func(*cli.Context, string) (func(*container.Network, string) error, error) {
	return func(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
		v, err := parse(s)
		return func(n *container.Network, link string) error {
			i, err := n.Interface(link)
			if err == nil {
				set(i, v)
			}
			return err
		}, err
	}
}

func ipSet(c *cli.Context, link string) (func(*container.Config) error, error) {
	var list []netip.Prefix
	for _, v := range c.StringSlice("ip-set") {
		if v == "none" {
			continue
		}
		p, err := usableAddress(v)
		if err != nil {
			return nil, misuse(c, "--ip-set: %v", err)
		}
		list = append(list, p)
	}
	return func(cfg *container.Config) error {
		i, err := cfg.Network.Interface(link)
		if err == nil {
			i.Addresses = append([]netip.Prefix(nil), list...)
		}
		return err
	}, nil
}

func readIPAdd(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	p, err := usableAddress(s)
	return func(n *container.Network, link string) error {
		if link == "" && len(n.Interfaces) == 0 { // the first address of one that had no network
			if err := n.AddInterface(netns.Interface{}); err != nil {
				return err
			}
		}
		return n.AddAddress(link, p)
	}, err
}

func readIPDel(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	if s == "all" {
		return func(n *container.Network, link string) error {
			for k := range n.Interfaces {
				if link == "" || n.Interfaces[k].Name == link {
					n.Interfaces[k].Addresses = nil
				}
			}
			return nil
		}, nil
	}
	p, err := parseAddress(s)
	if err != nil {
		err = errors.New(quoteWord(s) + " is no address")
	}
	return func(n *container.Network, link string) error { return n.RemoveAddress(link, p.Addr()) }, err
}

func readGateway(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	if s == "none" {
		return func(n *container.Network, link string) error {
			i, err := n.Interface(link)
			if err == nil {
				i.Gateways = nil
			}
			return err
		}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		err = errors.New(quoteWord(s) + " is no address")
	}
	return func(n *container.Network, link string) error { return n.SetGateway(link, a) }, err
}

func readNICDel(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	var err error
	if s == "" {
		err = errors.New("say which")
	}
	return func(n *container.Network, _ string) error { return n.RemoveInterface(s) }, err
}

func readNICAdd(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	i, err := parseNIC(s)
	return func(n *container.Network, _ string) error {
		// The edit may be made on more than one configuration.
		i := i
		i.Addresses = append([]netip.Prefix(nil), i.Addresses...)
		i.Gateways = append([]netip.Addr(nil), i.Gateways...)
		return n.AddInterface(i)
	}, err
}

func readBridge(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	return s, nil
}

func readMAC(s string) (string, error) {
	if s == "default" || s == "auto" || s == "none" {
		return "", nil
	}
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return "", errors.New(quoteWord(s) + " is no hardware address of one interface: write 02:00:5e:10:00:01, or default")
	}
	return mac.String(), nil
}

func readMTU(s string) (int, error) {
	if s == "default" || s == "none" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 68 || n > 65535 {
		return 0, errors.New(quoteWord(s) + " is not between 68 and 65535, nor default")
	}
	return n, nil
}
