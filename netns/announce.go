package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// announceCount and announceInterval are those of RFC 4861 for unsolicited
	// advertisements (MAX_NEIGHBOR_ADVERTISEMENT, RETRANS_TIMER).
	announceCount    = 3
	announceInterval = time.Second
)

// Announce tells the neighbours once where the addresses of a container are
// now: by gratuitous ARP and unsolicited neighbour advertisements that override
// what the neighbours know. Without it they would go on sending to where it was
// until their entries expire. It is for after addresses were added, and after a
// container was started, restored or moved, and takes about a millisecond.
//
// A bridged interface announces from inside the namespace of process pid all
// addresses that it has there, so that switches learn the way too. For a routed
// one the host does it on each link where it answers for an address in place of
// the container (proxy ARP, proxy NDP), with the hardware address of that link;
// elsewhere there is nobody to tell. Links that are down are passed over.
//
// One frame may get lost: [AnnounceAgain] sends two more of each.
//
// Errors: ErrNoProcess, ErrHostNamespace, if an interface is bridged.
func Announce(ctx context.Context, pid int, c Config) (err error) {
	defer wrapOp("announce addresses", "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	var bridged []string
	var routed []netip.Addr
	for _, i := range c.Interfaces {
		if i.Bridge != "" {
			bridged = append(bridged, i.Name)
			continue
		}
		for _, p := range i.Addresses {
			routed = append(routed, p.Addr())
		}
	}
	return errors.Join(announceBridged(pid, bridged), announceProxied(routed))
}

// AnnounceAgain repeats [Announce] twice, with a second before each, for
// whoever can wait that long: it returns after two seconds, or when ctx ends.
// Addresses that are gone by then are not announced.
func AnnounceAgain(ctx context.Context, pid int, c Config) error {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for range announceCount - 1 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := Announce(ctx, pid, c); err != nil {
			return err
		}
	}
	return nil
}

func announceBridged(pid int, names []string) error {
	if len(names) == 0 {
		return nil
	}
	ns, err := openOf(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	return enter(ns, func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		networks, err := hostNetworks(s, names)
		if err = errors.Join(err, s.close()); err != nil {
			return err
		}
		var errs []error
		for _, name := range names {
			for _, n := range networks {
				if n.name == name {
					errs = append(errs, n.announce(n.addrs(), forwards(name)))
				}
			}
		}
		return errors.Join(errs...)
	})
}

// forwards says whether a link's IPv6 neighbours are to take this host for a
// router: an advertisement that says otherwise makes them drop their routes.
func forwards(link string) bool {
	b, err := os.ReadFile(sysctlPath("ipv6", "conf", link, "forwarding"))
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

func announceProxied(addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return nil
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	networks, proxied, err := answering(s, addresses)
	if err = errors.Join(err, s.close()); err != nil {
		return err
	}
	var errs []error
	for _, n := range networks {
		var some []netip.Addr
		for _, a := range addresses {
			if proxied[n.index][a] || a.Is4() && n.onLink(a) && proxiesARP(n.name) {
				some = append(some, a)
			}
		}
		errs = append(errs, n.announce(some, false))
	}
	return errors.Join(errs...)
}

// answering returns the host's networks, and for which of the addresses the host
// answers on them, by link.
func answering(s *socket, addresses []netip.Addr) ([]hostNetwork, map[int]map[netip.Addr]bool, error) {
	entries, err := s.proxiesThat(func(n neighbourInfo) bool { return slices.Contains(addresses, n.addr.Unmap()) })
	if err != nil {
		return nil, nil, err
	}
	var links []int
	of := make(map[int]map[netip.Addr]bool)
	for _, e := range entries {
		if of[e.index] == nil {
			of[e.index] = make(map[netip.Addr]bool)
			links = append(links, e.index)
		}
		of[e.index][e.addr.Unmap()] = true
	}
	networks, err := hostNetworks(s, nil, links...)
	return networks, of, err
}

// proxiesARP says whether the host answers on a link for all that it routes
// elsewhere.
func proxiesARP(link string) bool {
	for _, name := range []string{link, "all"} {
		b, err := os.ReadFile(sysctlPath("ipv4", "conf", name, "proxy_arp"))
		if err == nil && strings.TrimSpace(string(b)) == "1" {
			return true
		}
	}
	return false
}

func (n hostNetwork) addrs() []netip.Addr {
	out := make([]netip.Addr, 0, len(n.addresses))
	for _, p := range n.addresses {
		out = append(out, p.Addr())
	}
	return out
}

// announce sends one frame for each address, in the calling thread's namespace.
func (n hostNetwork) announce(addresses []netip.Addr, router bool) (err error) {
	if !n.up || len(addresses) == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("on %s: %w", n.name, err)
		}
	}()
	arp, err := openPackets(n.index, unix.ETH_P_ARP)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arp.close()) }()
	nd, err := openPackets(n.index, unix.ETH_P_IPV6)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nd.close()) }()
	var errs []error
	for _, a := range addresses {
		if a.Is4() {
			errs = append(errs, announcement(a, arp.send(broadcastMAC, arpFrame(n.mac, a, a))))
			continue
		}
		frame := advertisement(n.source(a), a, n.mac, router)
		errs = append(errs, announcement(a, nd.send(multicastMAC(allNodes), frame)))
	}
	return errors.Join(errs...)
}

// announcement names the address of a failed one. A link that goes down
// meanwhile has nobody to tell.
func announcement(a netip.Addr, err error) error {
	if err == nil || errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return fmt.Errorf("announce %s: %w", a, err)
}

// source is the address that an advertisement for a comes from: a itself if it
// is the link's, else another of the link (RFC 4861, section 4.4).
func (n hostNetwork) source(a netip.Addr) netip.Addr {
	other := a
	for _, p := range n.addresses {
		if p.Addr() == a {
			return a
		}
		if p.Addr().Is6() {
			other = p.Addr()
		}
	}
	return other
}
