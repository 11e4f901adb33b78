package netns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// Stage is how far a container is connected.
type Stage int

const (
	// Joined is complete: packets pass.
	Joined Stage = iota
	// Held has the container's side complete, and the host's down and unrouted:
	// what sockets are restored on, before they may hear of anything. Addresses
	// that are swallowed stay so.
	Held
	// Silent has the host's side swallow what is sent to the container, whose
	// side stays.
	Silent
	// Down has nothing left.
	Down
	// Blackholed has nothing left but routes of the host that swallow, and the
	// packet filter. A bridged interface just goes: there is no route to change.
	Blackholed
)

// Target is whose network is meant, and how far it goes.
type Target struct {
	// PID is a process in the container's network namespace. 0 leaves the
	// container's side as it is; only Held and the first Joined need one.
	PID int
	// Stage is Joined when nothing is said.
	Stage Stage
	// Before is what was applied last, if known. It helps to recognise what is
	// ours where the kernel keeps no mark: addresses before Linux 5.18, and routes
	// that swallow. A failed Apply goes back to its packet filter and rates.
	Before *Config
}

// Apply makes the network of a container be as c wants it: it reads what is
// there, and changes what differs. What the container's admin has made inside is
// left alone. Where nothing differs, nothing is written; only what was done on
// top of it on the host, such as filter rules, is then looked at.
//
// An address that takes the place of another is there before the other goes.
// After an error everything is as it was, but for host-wide settings, and for
// interfaces whose removal was under way, which is the last step; with Stage Down
// and Blackholed it goes on after an error, and returns all of them. When it was
// cut off, calling it again ends where it would have.
//
// Errors: ErrConfig (with ErrNoIPv6, ErrNoBridge), ErrNoProcess,
// ErrHostNamespace, ErrLinkName, ErrNoLink, ErrAddressInUse.
func Apply(ctx context.Context, t Target, c Config) (err error) {
	defer wrapOp("apply network", c.hostLink(0), &err)
	return apply(ctx, t, c)
}

// Attach is Apply to stage Held: the container's side is complete, with an
// existing connection to another namespace replaced, and nothing reaches it
// before [Join].
func Attach(ctx context.Context, pid int, c Config) (err error) {
	defer wrapOp("attach", c.hostLink(0), &err)
	return apply(ctx, Target{PID: pid, Stage: Held}, c)
}

// Join is Apply to stage Joined of what is attached; the container's side is not
// looked at. Errors: also ErrNoLink.
func Join(ctx context.Context, c Config) (err error) {
	defer wrapOp("join", c.hostLink(0), &err)
	return apply(ctx, Target{}, c)
}

// Silence is Apply to stage Silent, in well under a millisecond. Deleting a pair
// takes the kernel 10 to 40 ms; whoever has to stop the traffic at a certain
// moment does this first. Join undoes it. Errors: also ErrNoLink.
func Silence(ctx context.Context, c Config) (err error) {
	defer wrapOp("silence", c.hostLink(0), &err)
	return apply(ctx, Target{Stage: Silent}, c)
}

// Leave is Apply to stage Down, or Blackholed. Addresses that meanwhile are routed
// through another link, or are the host's own, are left alone.
func Leave(ctx context.Context, c Config, blackhole bool) (err error) {
	defer wrapOp("leave", c.hostLink(0), &err)
	if blackhole {
		return apply(ctx, Target{Stage: Blackholed}, c)
	}
	return apply(ctx, Target{Stage: Down}, c)
}

// Prepare does ahead of time what is slow in Join, or could be refused: packet
// filter, rates and host-wide settings. It is for callers that count the time
// until Join returns, as a container's clients wait meanwhile; calling it is
// optional, and it may be repeated. Leave without blackhole undoes it.
func Prepare(ctx context.Context, c Config) (err error) {
	defer wrapOp("prepare", c.hostLink(0), &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.withKernel(ctx, 0, func(k *kernel) error {
		r, err := k.survey(Target{})
		if err != nil {
			return err
		}
		var planned []action
		for _, ch := range diff(r.out, r.want) {
			if ch.rank == rankHostwide {
				planned = append(planned, actionOf(k, ch))
			}
		}
		return runOrUndo(ctx, append(planned, k.policy(ctx, nil, nil).first...))
	})
}

func apply(ctx context.Context, t Target, c Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch t.Stage {
	case Joined, Held:
		return c.withKernel(ctx, t.PID, func(k *kernel) error { return k.connect(ctx, t) })
	case Silent:
		return c.withKernel(ctx, 0, func(k *kernel) error { return k.silence(ctx) })
	case Down, Blackholed:
		return c.withKernel(ctx, 0, func(k *kernel) error { return k.leave(ctx, t) })
	}
	return fmt.Errorf("%w: there is no stage %d", ErrConfig, t.Stage)
}

// withKernel checks what every operation needs.
func (c Config) withKernel(ctx context.Context, pid int, do func(*kernel) error) (err error) {
	if err := c.checkIdentity(); err != nil {
		return err
	}
	k, err := openKernel(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = k.closeWith(err) }()
	if pid != 0 {
		if err := c.Validate(); err != nil {
			return err
		}
		if err := k.enter(pid); err != nil {
			return err
		}
	}
	return do(k)
}

// survey looks, and refuses addresses that are taken.
func (k *kernel) survey(t Target) (*reader, error) {
	r, err := k.look(t)
	if err != nil {
		return nil, err
	}
	return r, k.claim(r.holders, k.c)
}

// look reads what stage Joined or Held is about.
func (k *kernel) look(t Target) (*reader, error) {
	if err := k.c.Validate(); err != nil {
		return nil, err
	}
	f, err := k.facts(t.Stage == Joined)
	if err != nil {
		return nil, err
	}
	r := &reader{k: k, c: k.c, before: t.Before, want: wanted(k.c, t.Stage, k.inside != nil, f)}
	if err := r.links(false); err != nil {
		return nil, err
	}
	return r, r.read()
}

func (k *kernel) connect(ctx context.Context, t Target) error {
	if t.Stage == Held && k.inside == nil {
		return fmt.Errorf("%w: 0", ErrNoProcess)
	}
	r, err := k.survey(t)
	if err != nil {
		return err
	}
	if err := k.requireLinks(); k.inside == nil && err != nil {
		return err
	}
	if t.Stage == Held {
		r.want = append(r.want, swallowed(r.out, k.c)...)
		return runOrUndo(ctx, actions(k, diff(r.out, r.want), policyActions{}))
	}
	changes := diff(r.out, r.want)
	return runOrUndo(ctx, actions(k, changes, k.policy(ctx, t.Before, changes)))
}

// requireLinks fails when a pair is missing that cannot be made from here.
func (k *kernel) requireLinks() error {
	for _, i := range k.c.Interfaces {
		if _, found := k.pairs[k.c.hostLink(i.Index)]; !found {
			return fmt.Errorf("interface %s: %w", i.Name, ErrNoLink)
		}
	}
	return nil
}

// swallowed are the routes that throw away what is sent to the container's
// addresses, and the proxy entries that make others send it here.
func swallowed(actual state, c Config) state {
	ours := map[netip.Addr]bool{}
	for _, i := range c.Interfaces {
		for _, a := range i.addrs() {
			ours[a] = i.Bridge == ""
		}
	}
	var out state
	dropped := map[netip.Addr]bool{}
	for _, t := range actual {
		if t.kind == kindRoute && !t.inside && t.drop && ours[t.dst.Addr()] {
			out, dropped[t.dst.Addr()] = append(out, t), true
		}
	}
	for _, t := range actual {
		if t.kind == kindProxy && dropped[t.dst.Addr()] {
			out = append(out, t)
		}
	}
	return out
}

// facts asks the host for what the wanted state depends on.
func (k *kernel) facts(subnets bool) (facts, error) {
	f := facts{mtu: map[string]int{}}
	for _, i := range k.c.Interfaces {
		if i.has6() {
			if err := requireIPv6(); err != nil {
				return f, fmt.Errorf("interface %s: %w", i.Name, err)
			}
		}
		if i.Bridge == "" {
			continue
		}
		l, found, err := k.host.linkNamed(i.Bridge)
		switch {
		case err != nil:
			return f, err
		case !found && i.Bridge == OwnBridge:
			continue
		case !found || l.kind != "bridge":
			return f, fmt.Errorf("interface %s: %w", i.Name, k.noBridge(i.Bridge, found))
		}
		f.mtu[i.Bridge] = l.mtu
		f.foreign = f.foreign || i.Bridge == OwnBridge && l.mac != ownMAC().String()
	}
	if !subnets {
		return f, nil
	}
	var err error
	f.subnets, err = k.subnetsAround(k.c.visible())
	return f, err
}

// visible are the addresses of routed interfaces that others may look for.
func (c Config) visible() []netip.Addr {
	var out []netip.Addr
	for _, i := range c.Interfaces {
		if i.Bridge == "" && !i.NAT {
			out = append(out, i.addrs()...)
		}
	}
	return out
}

// noBridge says which bridges there are, and what to do.
func (k *kernel) noBridge(name string, exists bool) error {
	list, err := k.host.links(ofKind("bridge"))
	if err != nil {
		return err
	}
	what := "the host has no bridge " + name
	if exists {
		what = "the host's link " + name + " is no bridge"
	}
	var names []string
	for _, l := range list {
		if l.kind == "bridge" {
			names = append(names, l.name)
		}
	}
	cure := "the host has none: make one, or name " + OwnBridge + ", which is made when it is needed"
	if len(names) > 0 {
		cure = "there are " + strings.Join(names, ", ") + ", and " + OwnBridge + ", which is made when it is needed"
	}
	return fmt.Errorf("%w: %w: %s; %s", ErrConfig, ErrNoBridge, what, cure)
}
