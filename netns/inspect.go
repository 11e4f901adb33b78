package netns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Report is one container's network as it is, against what it should be.
type Report struct {
	Interfaces []InterfaceReport `json:"interfaces"`
	// Differences is empty when all is as it should be; [Apply] settles them. What
	// the container's admin has made inside is none.
	Differences []Difference `json:"differences,omitempty"`
}

// InterfaceReport is one interface as it is.
type InterfaceReport struct {
	Name     string `json:"name"`
	Index    int    `json:"index"`
	HostLink string `json:"hostLink"`
	Bridge   string `json:"bridge,omitempty"`
	MAC      string `json:"mac"`
	MTU      int    `json:"mtu"` // bytes
	// Present means that the pair is there, and leads into the container.
	Present bool `json:"present"`
	// Up means that the host's end lets packets through.
	Up        bool            `json:"up"`
	Addresses []AddressReport `json:"addresses,omitempty"`
	Routes    []RouteReport   `json:"routes,omitempty"`
	// Gateways are the default routers.
	Gateways []netip.Addr `json:"gateways,omitempty"`
}

// States of an address.
const (
	AddressOK        = "ok"        // the container has it, and the host sends there what is for it
	AddressMissing   = "missing"   // the container does not have it
	AddressUnrouted  = "unrouted"  // the host has no route to it
	AddressSwallowed = "swallowed" // the host throws away what is for it
	AddressTaken     = "taken"     // another link of the host has it, or the host itself
)

// AddressReport is one address of an interface.
type AddressReport struct {
	Address netip.Prefix `json:"address"`
	State   string       `json:"state"`
	// Proxies are the host's links on which the host answers for the address.
	Proxies []string `json:"proxies,omitempty"`
}

// RouteReport is one route of the configuration.
type RouteReport struct {
	Route
	Present bool `json:"present"`
}

// Difference is one thing that is not as it should be.
type Difference struct {
	// Inside the container, or else on the host.
	Inside bool `json:"inside"`
	// Link is the host's end of the pair that it is about, if it is about one.
	Link string `json:"link,omitempty"`
	// Kind is one of setting, bridge, link, address, neighbour, route, rule, proxy
	// entry; and rate, see [RateReport.Differences].
	Kind string `json:"kind"`
	// Object is its name: an address, a destination, a setting, a link.
	Object string `json:"object"`
	// Wanted and Actual are what it should be and what it is; "" is nothing.
	Wanted string `json:"wanted"`
	Actual string `json:"actual"`
}

// Inspect compares what is there with the configuration. pid is a process of the
// running container; with 0 it does not run, and has nothing but what swallows.
// The packet filter and rates have reports of their own, [PolicyOf] and [RateOf].
//
// Errors: those of [Apply], but for ErrAddressInUse, which is in the report.
func Inspect(ctx context.Context, pid int, c Config) (report Report, err error) {
	defer wrapOp("inspect network", c.hostLink(0), &err)
	if err := ctx.Err(); err != nil {
		return report, err
	}
	err = c.withKernel(ctx, pid, func(k *kernel) error {
		r, err := k.compare(pid)
		if err == nil {
			report = r.report()
		}
		return err
	})
	return report, err
}

// compare reads the actual state together with the wanted one.
func (k *kernel) compare(pid int) (*reader, error) {
	if pid != 0 {
		return k.look(Target{PID: pid})
	}
	want, err := k.blackholes()
	if err != nil {
		return nil, err
	}
	r := &reader{k: k, c: k.c, want: want}
	if err := r.links(true); err != nil {
		return nil, err
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	r.want = swallowed(r.out, k.c)
	return r, nil
}

func (r *reader) report() Report {
	have := r.out.values()
	var out Report
	for _, i := range r.c.Interfaces {
		link := r.c.hostLink(i.Index)
		mac, _ := r.c.macs(i)
		pair, found := have[item{kind: kindPair, link: link}]
		x := InterfaceReport{
			Name: i.Name, Index: i.Index, HostLink: link, Bridge: i.Bridge, MAC: mac.String(), MTU: pair.mtu,
			Present: found && !pair.lost, Up: pair.up && !pair.closed, Gateways: i.gateways(),
		}
		for _, p := range i.Addresses {
			x.Addresses = append(x.Addresses, r.addressReport(have, i, p))
		}
		for _, rt := range i.Routes {
			v, found := have[routeItem(rt.To, mainTable, rt.Metric)]
			x.Routes = append(x.Routes, RouteReport{rt, found && v == r.c.via(i, rt)})
		}
		out.Interfaces = append(out.Interfaces, x)
	}
	out.Differences = differences(r.out, r.want)
	return out
}

func (r *reader) addressReport(have map[item]value, i Interface, p netip.Prefix) AddressReport {
	out := AddressReport{Address: p, State: AddressOK}
	a, link := p.Addr(), r.c.hostLink(i.Index)
	inside := p
	if i.Bridge == "" {
		inside = host(a)
	}
	_, has := have[item{kind: kindAddress, inside: true, link: link, dst: inside}]
	route := have[item{kind: kindRoute, dst: host(a)}]
	o := r.holders[a]
	switch {
	case o.local || o.index != 0:
		out.State = AddressTaken
	case route.drop:
		out.State = AddressSwallowed
	case !has:
		out.State = AddressMissing
	case i.Bridge == "" && route.device != link:
		out.State = AddressUnrouted
	}
	for _, t := range r.out {
		if t.kind == kindProxy && t.dst.Addr() == a {
			out.Proxies = append(out.Proxies, t.link)
		}
	}
	return out
}

// differences puts what diff would change into words.
func differences(actual, wanted state) []Difference {
	have, want := actual.values(), wanted.values()
	var out []Difference
	note := func(i item, wanted, actual string) {
		d := Difference{Inside: i.inside, Link: i.link, Kind: kindNames[i.kind], Object: i.object(), Wanted: wanted, Actual: actual}
		out = append(out, d)
	}
	for _, t := range wanted {
		v, found := have[t.item]
		switch {
		case !found:
			note(t.item, t.value.words(t.kind), "")
		case v != t.value:
			note(t.item, t.value.words(t.kind), v.words(t.kind))
		}
	}
	for _, t := range actual {
		if _, found := want[t.item]; !found && t.kind != kindBridge && t.kind != kindSetting {
			note(t.item, "", t.value.words(t.kind))
		}
	}
	return out
}

// object is the name of a thing among those of its kind.
func (i item) object() string {
	switch i.kind {
	case kindSetting:
		return i.name
	case kindBridge, kindPair:
		return i.link
	case kindEnd:
		return "the container's end"
	case kindNeighbour, kindProxy:
		return i.dst.Addr().String()
	case kindRoute:
		return strings.TrimSpace(i.dst.String() + i.tableWords())
	case kindRule:
		return fmt.Sprintf("from %s%s", i.dst, i.tableWords())
	}
	return i.dst.String()
}

func (i item) tableWords() string {
	var out string
	if i.table != 0 && i.table != mainTable {
		out = fmt.Sprintf(" table %d", i.table)
	}
	if i.metric != 0 && i.metric != metric6 {
		out += fmt.Sprintf(" metric %d", i.metric)
	}
	return out
}

// words describe a value; a thing that has none is just present.
func (v value) words(k kind) string {
	var out []string
	add := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(v.text != "", "%s", v.text)
	add(v.name != "", "%s", v.name)
	add(v.mac != "", "%s", v.mac)
	add(v.mtu != 0, "mtu %d", v.mtu)
	add(v.bridge != "", "port of %s", v.bridge)
	add(v.closed, "closed")
	add(v.lost, "leads elsewhere")
	add(v.drop, "swallows")
	add(v.device != "", "through %s", v.device)
	add(v.via.IsValid(), "via %s", v.via)
	if slices.Contains([]kind{kindPair, kindEnd, kindBridge}, k) {
		add(v.up, "up")
		add(!v.up, "down")
	}
	if len(out) == 0 {
		return "present"
	}
	return strings.Join(out, " ")
}
