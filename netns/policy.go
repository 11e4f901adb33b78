package netns

import (
	"context"
	"fmt"
	"slices"
)

// policyActions are what packet filter and rates need, beside the changes of a state.
type policyActions struct {
	first []action // before packets of new addresses pass
	last  []action // when what goes has gone, but for links
}

// policy brings packet filter and rates to what the configuration wants. As long
// as addresses that go are still there, they pass the filter too: one that takes
// the place of another answers before the other stops.
//
// Undone, the filter is what it was with the configuration before; when none is
// known it stays, and [Leave] removes it.
func (k *kernel) policy(ctx context.Context, before *Config, changes []change) policyActions {
	undo := func(do func(Config) error) func() error {
		if before == nil {
			return nil
		}
		return func() error { return do(*before) }
	}
	apply := func(c Config) action {
		return action{
			step: step{applyFilter, func() error { return preparePolicy(ctx, c) }},
			undo: undo(func(c Config) error { return preparePolicy(context.WithoutCancel(ctx), c) }),
		}
	}
	rates := func(mtu map[string]int) action {
		return action{step: step{applyLimits, func() error { return k.c.applyRates(ctx, mtu) }}, undo: undo(func(c Config) error {
			return c.applyRates(context.WithoutCancel(ctx), nil)
		})}
	}
	both, more := k.c.withLeaving(changes, before)
	resized := resizedBy(changes)
	p := policyActions{first: []action{apply(both), rates(resized)}}
	if more {
		p.last = []action{apply(k.c)}
	}
	if len(resized) > 0 {
		p.last = append(p.last, rates(nil))
	}
	return p
}

// resizedBy are the links whose MTU the changes change, each with the larger one: a
// limit drops packets that are larger than it was made for, see [shaper], and is
// changed before the link is.
func resizedBy(changes []change) map[string]int {
	mtu := map[string]int{}
	for _, c := range changes {
		if c.kind == kindPair && c.op == opAlter && c.from.mtu != c.to.mtu {
			mtu[c.link] = max(c.from.mtu, c.to.mtu)
		}
	}
	return mtu
}

const (
	applyFilter = "apply the packet filter"
	applyLimits = "apply the rates"
)

// withLeaving adds the addresses and interfaces that the changes remove; more says
// whether there are any.
func (c Config) withLeaving(changes []change, before *Config) (both Config, more bool) {
	both = c
	both.Interfaces = slices.Clone(c.Interfaces)
	for _, ch := range changes {
		index, ours := c.indexOf(ch.link)
		leaves := ch.kind == kindPair && ch.rank == rankNoPair || ch.kind == kindAddress && ch.inside && !ch.dst.Addr().IsLinkLocalUnicast()
		if ch.op != opRemove || !ours || !leaves {
			continue
		}
		more = true
		n := slices.IndexFunc(both.Interfaces, func(i Interface) bool { return i.Index == index })
		if n < 0 {
			both.Interfaces = append(both.Interfaces, before.interfaceAt(index))
			n = len(both.Interfaces) - 1
		}
		i := &both.Interfaces[n]
		if a := ch.dst.Addr(); ch.kind == kindAddress && !slices.Contains(i.addrs(), a) {
			i.Addresses = append(slices.Clone(i.Addresses), ch.dst)
		}
	}
	return both, more
}

// interfaceAt is the interface with an index, or one of which nothing is known.
func (c *Config) interfaceAt(index int) Interface {
	if c != nil {
		for _, i := range c.Interfaces {
			if i.Index == index {
				return i
			}
		}
	}
	return Interface{Index: index}
}

// applyRates leaves out links that are not there yet. Limits are made for the MTU
// of the link, or for the one given if that is larger.
func (c Config) applyRates(ctx context.Context, mtu map[string]int) error {
	var unlike []Interface
	err := c.withKernel(ctx, 0, func(k *kernel) error {
		for _, i := range c.Interfaces {
			none, err := k.unlimited(c.hostLink(i.Index))
			if err != nil {
				return err
			}
			if i.Rate != (Rate{}) || !none {
				unlike = append(unlike, i)
			}
		}
		return nil
	})
	if err != nil || len(unlike) == 0 {
		return err
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, i := range unlike {
		link, err := vethNamed(h, c.hostLink(i.Index))
		if err == nil && link != nil {
			a := link.Attrs()
			a.MTU = max(a.MTU, mtu[a.Name])
			err = applyRate(h, link, i.Rate)
		}
		if err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	return nil
}

// unlimited says that a link has no limit. To list queueing disciplines, as
// [applyRate] does, takes time with the number of links of the host.
func (k *kernel) unlimited(link string) (bool, error) {
	l, found, err := k.host.linkNamed(link)
	if err != nil || !found || l.queue == "tbf" {
		return !found, err
	}
	_, shaped, err := k.host.linkNamed(shaperName(link))
	return !shaped, err
}
