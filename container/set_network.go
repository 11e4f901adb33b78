package container

import (
	"context"
	"reflect"

	"github.com/ctctl/ctctl/netns"
)

// applyNetwork lets a container's network follow.
func (l *Locked) applyNetwork(ctx context.Context, c change) error {
	if reflect.DeepEqual(c.from.netConfig(), c.to.netConfig()) {
		return nil
	}
	return l.plug(ctx, c)
}

// plug makes the network of c.to, where c.from may be in effect: all of it for
// what runs, the host's silence towards its clients for what is suspended.
func (l *Locked) plug(ctx context.Context, c change) error {
	before := c.from.netConfig()
	t := netns.Target{Before: &before}
	switch c.status {
	case Running, Paused:
		t.PID = c.run.PID
	case Suspended:
		t.Stage = netns.Blackholed
	default:
		return nil
	}
	return netns.Apply(ctx, t, c.to.netConfig())
}

// probe asks the networks whether somebody has an address that is to be added.
func (l *Locked) probe(ctx context.Context, c change) error {
	added := newAddresses(c.from.Network, c.to.Network)
	if c.noProbe || len(added) == 0 {
		return nil
	}
	return netns.Probe(ctx, c.to.netConfig(), added)
}

// announce tells the networks of new addresses at once; the supervisor repeats it.
// That it can't be told undoes nothing: peers find out by themselves, later.
func (l *Locked) announce(ctx context.Context, c change) {
	if !c.up() || reflect.DeepEqual(c.from.netConfig(), c.to.netConfig()) {
		return
	}
	if err := netns.Announce(ctx, c.run.PID, c.to.netConfig()); err != nil {
		l.m.log().Warn("announce the addresses", "container", l.Config.Name, "err", err)
	}
}
