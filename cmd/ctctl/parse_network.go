package main

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/urfave/cli/v2"
)

// usableAddress reads an address that a container can have.
func usableAddress(s string) (netip.Prefix, error) {
	p, err := parseAddress(s)
	if err != nil {
		return p, errors.New(quoteWord(s) + " is no address: write 192.0.2.5, 192.0.2.5/24 or 2001:db8::5/64")
	}
	if a := p.Addr(); a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return p, fmt.Errorf("%s can't be a container's address", a)
	}
	return p, nil
}

// parseAddress reads an address, with the length of its network's prefix or without.
func parseAddress(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, usageError{msg: "no address"}
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// lonely says of addresses of bridged interfaces that are new and stand for
// themselves alone that they are, which a forgotten length makes them.
func lonely(before, after container.Network) (notes []string) {
	had := before.Addresses()
	for _, i := range after.Interfaces {
		for _, p := range i.Addresses {
			within := slices.ContainsFunc(i.Addresses, func(o netip.Prefix) bool { return o != p && o.Contains(p.Addr()) })
			if i.Bridge == "" || !p.IsSingleIP() || within || slices.Contains(had, p) {
				continue
			}
			length := map[bool]int{true: 24, false: netns.OwnNetwork6.Bits()}[p.Addr().Is4()]
			if i.Bridge == netns.OwnBridge && p.Addr().Is4() {
				length = netns.OwnNetwork4.Bits()
			}
			notes = append(notes, fmt.Sprintf("%s on the bridge %s reaches nobody there: give it the length of its network, like %s/%d",
				p, i.Bridge, p.Addr(), length))
		}
	}
	return notes
}

// parseNIC reads name=eth1,bridge=br1,…, and vzctl's NAME[,MAC[,HOSTNAME[,HOSTMAC[,BRIDGE]]]],
// of which the host's name and address are this program's business.
func parseNIC(s string) (i netns.Interface, err error) {
	parts := strings.Split(s, ",")
	if !strings.Contains(parts[0], "=") && parts[0] != "nat" {
		i.Name = parts[0]
		if len(parts) > 1 && !strings.Contains(parts[1], "=") && parts[1] != "nat" {
			return vzNIC(i, parts)
		}
		parts = parts[1:]
	}
	for _, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "name":
			i.Name = value
		case "bridge":
			i.Bridge, err = readBridge(value)
		case "mac":
			i.MAC, err = readMAC(value)
		case "mtu":
			i.MTU, err = readMTU(value)
		case "ip":
			var p netip.Prefix
			p, err = usableAddress(value)
			i.Addresses = append(i.Addresses, p)
		case "gateway":
			var a netip.Addr
			if a, err = netip.ParseAddr(value); err != nil {
				err = errors.New(quoteWord(value) + " is no address")
			}
			i.Gateways = append(i.Gateways, a)
		case "nat":
			i.NAT = value == "" || value == "yes" || value == "true"
		default:
			err = fmt.Errorf("%s is none of name, bridge, mac, mtu, ip, gateway, nat", quoteWord(key))
		}
		if err != nil {
			return i, err
		}
	}
	return i, nil
}

func vzNIC(i netns.Interface, parts []string) (netns.Interface, error) {
	if len(parts) > 5 {
		return i, errors.New("more than NAME,MAC,HOSTNAME,HOSTMAC,BRIDGE")
	}
	var err error
	if parts[1] != "" {
		i.MAC, err = readMAC(parts[1])
	}
	if len(parts) == 5 {
		i.Bridge = parts[4]
	}
	return i, err
}

// parseRate reads bits per second as tc(8) writes them: powers of 1000.
func parseRate(s string) (int64, error) {
	const cure = "write 10mbit, 1.5gbit or 500kbit; none is no limit"
	low := strings.ToLower(strings.TrimSpace(s))
	if low == "none" || low == "0" || low == "max" || low == "unlimited" {
		return 0, nil
	}
	low = strings.TrimSuffix(strings.TrimSuffix(low, "/s"), "ps")
	end := strings.IndexFunc(low, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end <= 0 || len(low) > 30 {
		return 0, fmt.Errorf("%s is no rate; %s", quoteWord(s), cure)
	}
	num, ok := new(big.Rat).SetString(low[:end])
	factor, known := map[string]int64{"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9, "tbit": 1e12}[strings.TrimSpace(low[end:])]
	if !ok || !known {
		return 0, fmt.Errorf("%s is no rate; %s", quoteWord(s), cure)
	}
	num.Mul(num, new(big.Rat).SetInt64(factor))
	bits := new(big.Int).Quo(num.Num(), num.Denom())
	if !bits.IsInt64() || bits.Int64() < netns.MinRateBits || bits.Int64() > netns.MaxRateBits {
		return 0, fmt.Errorf("%s is not between 8kbit and 100gbit", quoteWord(s))
	}
	return bits.Int64(), nil
}

func readRoute(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	r, err := parseRoute(s)
	return func(n *container.Network, link string) error { return n.AddRoute(link, r) }, err
}

// parseRoute reads "10.1.0.0/16,via=10.0.0.1,metric=50", and it as ip(8) writes it:
// "10.1.0.0/16 via 10.0.0.1 metric 50".
func parseRoute(s string) (r netns.Route, err error) {
	words := strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == '=' || c == ' ' })
	if len(words) == 0 {
		return r, errors.New("say where to")
	}
	if r.To, err = parseDestination(words[0]); err != nil {
		return r, err
	}
	if len(words)%2 == 0 {
		return r, errors.New(quoteWord(s) + " is no route: write 10.1.0.0/16,via=10.0.0.1")
	}
	for k := 1; k < len(words); k += 2 {
		value := words[k+1]
		switch words[k] {
		case "via":
			if r.Via, err = netip.ParseAddr(value); err != nil {
				return r, errors.New(quoteWord(value) + " is no address")
			}
		case "metric":
			if r.Metric, err = strconv.Atoi(value); err != nil || r.Metric < 1 {
				return r, errors.New("metric " + quoteWord(value) + " is no number from 1 on")
			}
		default:
			return r, fmt.Errorf("%s is neither via nor metric", quoteWord(words[k]))
		}
	}
	return r, nil
}

func parseDestination(s string) (netip.Prefix, error) {
	p, err := parseAddress(s)
	if err != nil {
		return p, errors.New(quoteWord(s) + " is no network: write 10.1.0.0/16 or 2001:db8::/32")
	}
	if p.Masked() != p {
		return p, fmt.Errorf("%s is an address in the network %s: write that", p, p.Masked())
	}
	return p, nil
}

func readRouteDel(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	to, err := parseDestination(s)
	return func(n *container.Network, link string) error { return n.RemoveRoute(link, to) }, err
}

func readPublish(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	f, err := parseForward(s)
	if err == nil && f.Port == 0 {
		f.Port = f.HostPort
	}
	return func(n *container.Network, _ string) error { n.Publish(f); return nil }, err
}

func readUnpublish(_ *cli.Context, s string) (func(*container.Network, string) error, error) {
	f, err := parseForward(s)
	return func(n *container.Network, _ string) error { return n.Unpublish(f) }, err
}

// parseForward reads [ADDRESS:]HOSTPORT[:PORT][/PROTOCOL]; without the port of the
// container it is 0.
func parseForward(s string) (f netns.Forward, err error) {
	bad := errors.New(quoteWord(s) + " is no forward: write HOSTPORT:PORT, with /tcp or /udp behind and an address of the host and : before it if wanted")
	rest, protocol, ok := strings.Cut(s, "/")
	if f.Protocol = protocol; !ok {
		f.Protocol = "tcp"
	}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return f, fmt.Errorf("%s: %s is neither tcp nor udp", quoteWord(s), quoteWord(protocol))
	}
	if end := strings.LastIndex(rest, "]:"); strings.HasPrefix(rest, "[") && end > 0 {
		if f.HostAddress, err = netip.ParseAddr(rest[1:end]); err != nil {
			return f, bad
		}
		rest = rest[end+2:]
	}
	parts := strings.Split(rest, ":")
	if len(parts) > 1 && strings.Contains(parts[0], ".") && !f.HostAddress.IsValid() {
		if f.HostAddress, err = netip.ParseAddr(parts[0]); err != nil {
			return f, bad
		}
		parts = parts[1:]
	}
	if len(parts) > 2 {
		return f, bad
	}
	for k, where := range []*uint16{&f.HostPort, &f.Port}[:len(parts)] {
		n, err := strconv.ParseUint(parts[k], 10, 16)
		if err != nil || n == 0 {
			return f, fmt.Errorf("%s: %s is no port from 1 to 65535", quoteWord(s), quoteWord(parts[k]))
		}
		*where = uint16(n)
	}
	return f, nil
}
