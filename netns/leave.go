package netns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// silence changes as little as it takes: it reads and writes one message for each
// address, and one for each bridge's port.
func (k *kernel) silence(ctx context.Context) error {
	var actual, want state
	add := func(i item, is, shall value) {
		actual, want = append(actual, thing{i, is}), append(want, thing{i, shall})
	}
	for _, i := range k.c.Interfaces {
		name := k.c.hostLink(i.Index)
		if err := (&reader{k: k}).pair(name); err != nil {
			return err
		}
		l, found := k.pairs[name]
		if !found {
			return fmt.Errorf("interface %s: %w", i.Name, ErrNoLink)
		}
		if i.Bridge != "" {
			add(item{kind: kindPair, link: name}, value{up: l.up, closed: l.closed || !l.up}, value{up: l.up, closed: true})
			continue
		}
		for _, a := range i.addrs() {
			o, err := k.host.holderOf(a)
			switch {
			case err != nil:
				return err
			case o.local || o.index != 0 && o.index != l.index:
				return fmt.Errorf("interface %s: %w", i.Name, k.inUse(a, o))
			}
			was := value{drop: o.blackhole}
			if o.index != 0 {
				was.device = name
			}
			add(item{kind: kindRoute, dst: host(a)}, was, value{drop: true})
		}
	}
	return runOrUndo(ctx, actions(k, diff(actual, want), policyActions{}))
}

// leave removes all there is, or all but what swallows. Whatever a name of this
// container's links leads to goes, whether it is in the configuration or not.
func (k *kernel) leave(ctx context.Context, t Target) error {
	r := &reader{k: k, c: k.c, before: t.Before}
	if t.Stage == Blackholed {
		var err error
		if r.want, err = k.blackholes(); err != nil {
			return err
		}
	}
	if err := r.links(true); err != nil {
		return err
	}
	if err := r.read(); err != nil {
		return err
	}
	if err := k.claim(r.holders, k.c.added(t.Before)); err != nil {
		return err
	}
	r.want = slices.DeleteFunc(r.want, func(t thing) bool {
		o := r.holders[t.dst.Addr()]
		return o.local || o.index != 0
	})
	planned := actions(k, diff(r.out, r.want), policyActions{})
	if t.Stage == Down {
		drop := step{"remove the packet filter", func() error { return removePolicy(ctx, k.c.UID) }}
		planned = append(planned, action{step: drop})
	}
	return runAll(ctx, planned)
}

// added is the configuration with only those addresses that were not in the one
// before; with none, if that is not known. Addresses that were the container's
// may meanwhile be another's, and are left to it.
func (c Config) added(before *Config) Config {
	out := Config{UID: c.UID}
	if before == nil {
		return out
	}
	had := (&reader{c: *before}).addresses()
	for _, i := range c.Interfaces {
		i.Addresses = slices.DeleteFunc(slices.Clone(i.Addresses), func(p netip.Prefix) bool {
			_, old := had[p.Addr()]
			return old
		})
		out.Interfaces = append(out.Interfaces, i)
	}
	return out
}

// blackholes are routes that swallow in the place of those to routed interfaces.
// Other hosts still find the way here: what they send is lost, not refused.
func (k *kernel) blackholes() (state, error) {
	subnets, err := k.subnetsAround(k.c.visible())
	return blackholes(k.c, facts{subnets: subnets}), err
}

func blackholes(c Config, f facts) state {
	p := plan{c: c, f: f}
	for _, i := range c.Interfaces {
		if i.Bridge != "" {
			continue
		}
		for _, a := range i.addrs() {
			p.add(item{kind: kindRoute, dst: host(a)}, value{drop: true})
		}
		for _, x := range i.proxied(f) {
			p.add(x, value{})
		}
	}
	return p.out
}

// hands are what changes are done with: the kernel's, or a test's.
type hands interface {
	perform(change) error
	// wait is what has to be waited for after a change.
	wait(change) (s step, needed bool)
}

// actions are the changes in their order. The packet filter comes between what is
// new inside and what lets packets pass; waiting for the kernel's own workers,
// before anything goes away.
func actions(h hands, changes []change, policy policyActions) []action {
	var out, waits []action
	insert := func(list *[]action) { out, *list = append(out, *list...), nil }
	fresh := map[string]bool{}
	for _, c := range changes {
		if c.rank > rankPolicy {
			insert(&policy.first)
		}
		if c.rank >= rankNoProxy {
			insert(&waits)
		}
		if c.rank >= rankNoPair {
			insert(&policy.last)
		}
		if c.kind == kindPair && c.op == opAdd {
			fresh[c.link] = true
		}
		a := actionOf(h, c)
		if fresh[c.link] && c.kind != kindPair && c.kind != kindProxy && c.kind != kindRule {
			a.undo = nil // it goes with its link
		}
		out = append(out, a)
		if w, needed := h.wait(c); needed {
			waits = append(waits, action{step: w})
		}
	}
	insert(&policy.first)
	insert(&waits)
	insert(&policy.last)
	return out
}

func actionOf(h hands, c change) action {
	a := action{step: step{c.String(), func() error { return h.perform(c) }}}
	hostWide := c.kind == kindSetting && c.link == "" && !c.inside // others may rely on it by now
	if gone := c.kind == kindPair && c.op == opRemove; !hostWide && !gone {
		a.undo = func() error { return h.perform(c.inverse()) }
	}
	return a
}

// wait is what has to be waited for after a change.
func (k *kernel) wait(c change) (s step, needed bool) {
	if c.op == opRemove {
		return s, false
	}
	a := c.dst.Addr()
	switch {
	case c.kind == kindAddress && a.Is6() && c.link != OwnBridge && (!c.inside || !a.IsLinkLocalUnicast()):
		return step{"wait for " + a.String(), func() error {
			s, index, err := k.side(c.item)
			if err != nil {
				return err
			}
			return s.awaitLocal(a, index)
		}}, true
	case c.kind == kindPair && c.op == opAlter && c.to.up && !c.from.up:
		return step{"wait for the container's end", func() error { return k.host.awaitPeer(k.pairs[c.link]) }}, true
	}
	return s, false
}

// deleteLink removes a pair, or the bridge; an absent one is no error.
func (s *socket) deleteLink(index int) error {
	err := s.ask(unix.RTM_DELLINK, 0, linkBody(unix.AF_UNSPEC, index, 0, 0), nil)
	if isAbsent(err) {
		return nil
	}
	return err
}
