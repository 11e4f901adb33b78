package netns

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// leave deletes the pair, which takes eth0 from the container too, and the
// host's routes. With blackhole the routes are replaced before the link goes,
// without a gap, by ones that throw packets away silently, and the NAT entries
// stay; a later Attach and Join, or Leave without blackhole, removes them.
// Addresses that meanwhile are routed through another link, or are the host's
// own, are left alone. Only pair.Name and pair.Addresses are looked at.
// It goes on after an error, and returns all of them; what is absent is none.
//
// Errors: ErrConfig, ErrLinkName.
func leave(ctx context.Context, c pair, blackhole bool) (err error) {
	defer wrapOp("leave", c.Name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.checkNames(); err != nil {
		return err
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := vethNamed(h, c.Name)
	if err != nil {
		return err
	}
	index := 0
	if link != nil {
		index = link.Attrs().Index
	}
	holders, errs := held(h, c.addrs(), index)
	var steps []step
	for a, o := range holders {
		switch {
		case blackhole:
			steps = append(steps, blackholeStep(h, a))
		case o.blackhole:
			steps = append(steps, step{"unroute " + a.String(), func() error { return deleteBlackhole(h, a) }})
		}
	}
	steps = append(steps, step{"delete link", func() error { return deleteLink(h, c.Name) }})
	if !blackhole {
		ours := slices.Collect(maps.Keys(holders))
		steps = append(steps, step{"remove NAT", func() error { return removeNAT(ours) }})
	}
	for _, s := range steps {
		errs = append(errs, run(ctx, []step{s}))
	}
	return errors.Join(errs...)
}

// silence is the quick part of Leave with blackhole: it replaces the host's
// routes by ones that throw packets away, in well under a millisecond, and
// keeps the pair. Deleting a pair takes the kernel 10 to 40 ms; whoever has to
// stop the traffic at a certain moment does this first. Join undoes it.
//
// Errors: ErrConfig, ErrNoLink, ErrLinkName, ErrAddressInUse.
func silence(ctx context.Context, c pair) (err error) {
	defer wrapOp("silence", c.Name, &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.checkNames(); err != nil {
		return err
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := vethNamed(h, c.Name)
	if err != nil {
		return err
	}
	if link == nil {
		return ErrNoLink
	}
	if _, err := claim(h, c.addrs(), link.Attrs().Index); err != nil {
		return err
	}
	var steps []step
	for _, a := range c.addrs() {
		steps = append(steps, blackholeStep(h, a))
	}
	return run(ctx, steps)
}

// held returns the addresses that nobody else holds, with their holders.
func held(h *netlink.Handle, addrs []netip.Addr, index int) (map[netip.Addr]holder, []error) {
	holders := make(map[netip.Addr]holder, len(addrs))
	var errs []error
	for _, a := range addrs {
		o, err := holderOf(h, a)
		switch {
		case err != nil:
			errs = append(errs, err)
		case !o.foreign(index):
			holders[a] = o
		}
	}
	return holders, errs
}

func blackholeStep(h *netlink.Handle, a netip.Addr) step {
	return step{"blackhole " + a.String(), func() error { return h.RouteReplace(blackholeRoute(a)) }}
}
