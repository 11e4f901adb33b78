package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/urfave/cli/v2"
)

func netCommand() *cli.Command {
	return &cli.Command{
		Name:  "net",
		Usage: "list, show and repair the network of containers",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the interfaces of containers", Action: runNetList,
				Description: "Those of containers that run, are paused or suspended. Ctctl set changes them.",
			},
			{
				Name: "show", Usage: "show networks as they are, and what is not as configured", ArgsUsage: manyNames, Action: runNetShow,
				Description: "With what passed and what was dropped. As yaml, unless another format is asked for. The exit code\n" +
					"is 0 whether all is as it should be or not: see wrong.",
			},
			{
				Name: "repair", Usage: "make networks be as they are configured", ArgsUsage: "[NAME…]", Action: runNetRepair,
				Description: "Of all containers, if none is named. What was not as it should be is printed, one line each. What\n" +
					"an admin has made inside a container stays.",
				Flags: []cli.Flag{&cli.BoolFlag{Name: "orphans", Usage: "remove links, routes and filters of containers that are not in this state root; where several state roots share the host's network, theirs too"}},
			},
		},
	}
}

// nicView is one interface of a container.
type nicView struct {
	Container string         `json:"container"`
	Status    string         `json:"status"`
	Name      string         `json:"name"`
	HostLink  string         `json:"host_link"`
	Bridge    string         `json:"bridge,omitempty"` // "" is routed
	MAC       string         `json:"mac"`
	MTU       int            `json:"mtu"`
	Up        bool           `json:"up"`
	Addresses []addressView  `json:"addresses"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
	Routes    []netns.Route  `json:"routes,omitempty"`
	NAT       bool           `json:"nat"`
	Unpinned  bool           `json:"no_filter"`
	Egress    *shaperView    `json:"egress,omitempty"`
	Ingress   *shaperView    `json:"ingress,omitempty"`
	Drops     []dropView     `json:"drops,omitempty"`
	Wrong     int            `json:"wrong"` // how many things of the container's network are
	limit     netns.Rate     // as configured
	wanted    []netip.Prefix // likewise
}

type addressView struct {
	Address netip.Prefix `json:"address"`
	State   string       `json:"state"`
	Proxies []string     `json:"proxies,omitempty"`
}

type shaperView struct {
	Bits    int64  `json:"bits_per_second"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
	Dropped uint64 `json:"dropped"`
}

type dropView struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

type forwardView struct {
	Protocol    string     `json:"protocol"`
	HostAddress netip.Addr `json:"host_address,omitzero"`
	HostPort    uint16     `json:"host_port"`
	Port        uint16     `json:"port"`
}

func forwardViews(list []netns.Forward) (out []forwardView) {
	for _, f := range list {
		out = append(out, forwardView(f))
	}
	return out
}

// netView is the network of a container.
type netView struct {
	Name       string        `json:"name"`
	Status     string        `json:"status"`
	Isolated   bool          `json:"isolated"`
	DNS        []netip.Addr  `json:"dns,omitempty"`
	Search     []string      `json:"search,omitempty"`
	Forwards   []forwardView `json:"forwards,omitempty"`
	Interfaces []nicView     `json:"interfaces"`
	Wrong      []string      `json:"wrong"`
}

var nicColumns = []column[nicView]{
	{name: "name", text: func(v nicView) string { return v.Container }},
	{name: "nic", text: func(v nicView) string { return v.Name }},
	{name: "link", text: func(v nicView) string { return v.HostLink }},
	{name: "bridge", text: func(v nicView) string { return v.Bridge }},
	{name: "mac", text: func(v nicView) string { return v.MAC }},
	{name: "addresses", text: nicView.addressText},
	{name: "rate", text: nicView.rateText},
	{name: "state", text: nicView.stateText},
}

func (v nicView) addressText() string {
	var parts []string
	for _, p := range v.wanted {
		text := p.String()
		if v.Bridge == "" {
			text = p.Addr().String()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func (v nicView) rateText() string {
	if v.limit == (netns.Rate{}) {
		return ""
	}
	return bitsText(v.limit.EgressBits) + "/" + bitsText(v.limit.IngressBits)
}

// bitsText is a rate as its flag takes it.
func bitsText(bits int64) string {
	if bits == 0 {
		return "-"
	}
	units := []string{"bit", "kbit", "mbit", "gbit"}
	k := 0
	for bits%1000 == 0 && k < len(units)-1 {
		bits, k = bits/1000, k+1
	}
	return strconv.FormatInt(bits, 10) + units[k]
}

func (v nicView) stateText() string {
	switch {
	case v.Wrong > 0:
		return "wrong, see net show"
	case v.Status == string(container.Suspended):
		return "silent"
	case v.Up:
		return "up"
	}
	return "down"
}

// netViewOf joins what is configured and what there is.
func netViewOf(info container.Info, r container.NetworkReport) netView {
	n := info.Config.Network
	v := netView{
		Name: info.Config.Name, Status: string(info.Status), Isolated: n.Isolated, DNS: n.DNS, Search: n.Search, Forwards: forwardViews(n.Forwards),
		Interfaces: []nicView{}, Wrong: r.Wrong(),
	}
	if v.Wrong == nil {
		v.Wrong = []string{}
	}
	for _, i := range n.Interfaces {
		nic := nicView{
			Container: v.Name, Status: v.Status, Name: i.Name, Bridge: i.Bridge, MAC: i.MAC, MTU: i.MTU, Addresses: []addressView{},
			Gateways: i.Gateways, Routes: i.Routes, NAT: i.NAT, Unpinned: i.NoFilter, Wrong: len(v.Wrong), limit: i.Rate, wanted: i.Addresses,
		}
		for k, have := range r.Interfaces {
			if have.Name == i.Name {
				nic.fill(have, r, k)
			}
		}
		v.Interfaces = append(v.Interfaces, nic)
	}
	return v
}

func (v *nicView) fill(have netns.InterfaceReport, r container.NetworkReport, k int) {
	v.HostLink, v.MAC, v.MTU, v.Up, v.Gateways = have.HostLink, have.MAC, have.MTU, have.Up, have.Gateways
	for _, a := range have.Addresses {
		v.Addresses = append(v.Addresses, addressView{a.Address, a.State, a.Proxies})
	}
	for _, d := range r.Policy.Drops {
		if d.Link == have.HostLink && d.Packets > 0 {
			v.Drops = append(v.Drops, dropView{d.Reason, d.Packets, d.Bytes})
		}
	}
	if k < len(r.Rates) {
		v.Egress, v.Ingress = shaped(r.Rates[k].Egress), shaped(r.Rates[k].Ingress)
	}
}

func shaped(s *netns.ShaperReport) *shaperView {
	if s == nil {
		return nil
	}
	return &shaperView{s.Bits, s.Bytes, s.Packets, s.Dropped}
}

func runNetList(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		l := listing[nicView]{kind: "Interface", columns: nicColumns, id: func(v nicView) string { return v.Container + "/" + v.Name }}
		infos, err := s.Containers.List(ctx)
		all := manyError{of: len(infos) + 1}
		if err != nil {
			all.errs = append(all.errs, err)
		}
		for _, i := range infos {
			if i.Status == container.Stopped {
				continue
			}
			info, r, err := s.Containers.InspectNetwork(ctx, i.Config.Name)
			if err != nil {
				all.errs = append(all.errs, err)
				continue
			}
			l.items = append(l.items, netViewOf(info, r).Interfaces...)
		}
		s.talk.stop()
		if err := emit(c, l); err != nil {
			return err
		}
		return all.result()
	})
}

var netColumns = []column[netView]{
	{name: "name", text: func(v netView) string { return v.Name }},
	{name: "status", text: func(v netView) string { return v.Status }},
	{name: "wrong", text: func(v netView) string { return cmp.Or(strings.Join(v.Wrong, "; "), "nothing") }},
}

func runNetShow(c *cli.Context) error {
	list, err := containers(c)
	if err != nil {
		return err
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		l := listing[netView]{kind: "Network", columns: netColumns, single: len(list) == 1, id: func(v netView) string { return v.Name }}
		all := manyError{of: len(list)}
		for _, n := range list {
			info, r, err := s.Containers.InspectNetwork(ctx, n)
			if err != nil {
				all.errs = append(all.errs, err)
				continue
			}
			l.items = append(l.items, netViewOf(info, r))
		}
		s.talk.stop()
		format := c.String("format")
		if format == "table" {
			format = "yaml"
		}
		if len(l.items) > 0 {
			if err := l.print(c.App.Writer, format); err != nil {
				return err
			}
		}
		return all.result()
	})
}

func runNetRepair(c *cli.Context) error {
	if c.Bool("orphans") {
		return runNetOrphans(c)
	}
	var list []string
	if c.Args().Present() {
		var err error
		if list, err = containers(c); err != nil {
			return err
		}
	}
	return withHost(c, "repairing", func(ctx context.Context, s *session) error {
		if list == nil {
			var err error
			if list, err = s.Containers.Names(); err != nil {
				return err
			}
		}
		all := manyError{of: len(list)}
		var did []string
		for _, n := range list {
			wrong, err := s.Containers.RepairNetwork(ctx, n)
			if err != nil {
				all.errs = append(all.errs, err)
				continue
			}
			for _, w := range wrong {
				did = append(did, fmt.Sprintf("%s: put right: %s", n, w))
			}
		}
		s.talk.stop()
		if err := printRepair(c, s, did, len(all.errs) == 0); err != nil {
			return err
		}
		return all.result()
	})
}

func runNetOrphans(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		removed, err := s.Containers.ReapNetwork(ctx)
		var did []string
		for _, r := range removed {
			did = append(did, "removed: "+r)
		}
		s.talk.stop()
		return errors.Join(printRepair(c, s, did, err == nil), err)
	})
}
