package netns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// filterTries bounds how often a change is tried that others get in the way of.
const filterTries = 5

// tagPattern is what every object of a container in the packet filter carries:
// its host link's name without the index.
var tagPattern = regexp.MustCompile(`^ct[0-9a-f]{12}$`)

// entry is the place of an element.
type entry struct {
	set string
	key string
}

// policy is what the packet filter has to hold for one container.
type policy struct {
	tag string
	// sets that hold elements of the container, by their names.
	sets map[string]*nftables.Set
	// own are the sets that nobody else uses.
	own []*nftables.Set
	// entries are the elements with their data, which sets have none of.
	entries map[entry]string
	// chains of the container's links, by their names.
	chains map[string]chainOf
	// shaped are the chains that applyRate looks after.
	shaped []string
	// forwards of endpoints of the host.
	forwards map[endpoint]netip.AddrPort
}

// policy says what c needs.
func (c Config) policy() (policy, error) {
	tag := tagOf(c.UID)
	if !tagPattern.MatchString(tag) {
		return policy{}, badConfig("uid %q does not begin with twelve lower-case hexadecimal digits", c.UID)
	}
	p := policy{tag: tag, sets: map[string]*nftables.Set{}, entries: map[entry]string{}, chains: map[string]chainOf{}}
	for _, s := range sharedSets {
		p.sets[s.Name] = s
	}
	set4, set6 := guardSets(tag)
	p.sets[set4.Name], p.sets[set6.Name] = set4, set6
	for _, i := range c.Interfaces {
		if err := p.addInterface(c, i, set4, set6); err != nil {
			return policy{}, err
		}
	}
	return p, p.addForwards(c)
}

func tagOf(uid string) string { return "ct" + uid[:min(12, len(uid))] }

func guardSets(tag string) (v4, v6 *nftables.Set) {
	set := func(suffix string, addr nftables.SetDatatype) *nftables.Set {
		s := concatSet(tag+suffix, nftables.TypeIFName, addr)
		s.Table = guardTable
		return s
	}
	return set(".4", nftables.TypeIPAddr), set(".6", nftables.TypeIP6Addr)
}

func (p *policy) addInterface(c Config, i Interface, set4, set6 *nftables.Set) error {
	link := c.hostLink(i.Index)
	mac, _ := MACFor(c.UID, i.Index)
	if i.MAC != "" {
		var err error
		if mac, err = net.ParseMAC(i.MAC); err != nil {
			return errors.Join(ErrConfig, fmt.Errorf("interface %s: %w", i.Name, err))
		}
	}
	if i.Rate.EgressBits > 0 {
		p.shaped = append(p.shaped, shapeChain(link).Name)
	}
	for _, prefix := range i.Addresses {
		if !i.hidden() {
			break
		}
		a := prefix.Addr()
		p.entries[entry{natSetOf(a).Name, string(a.AsSlice())}] = ""
		if i.Bridge != "" {
			p.entries[homeEntry(a, i.Bridge)] = ""
		}
	}
	g := guard{link: link, set4: set4.Name, set6: set6.Name, mac: mac, open: i.NoFilter, isolated: c.Isolated}
	for chain, rules := range map[*nftables.Chain][]filterRule{g.in(): g.inRules(), g.out(): g.outRules()} {
		if len(rules) > 0 {
			p.chains[chain.Name] = chainOf{chain, p.tag, rules}
		}
	}
	if g.open {
		return nil
	}
	p.own = []*nftables.Set{set4, set6}
	for _, a := range sources(i, mac) {
		p.entries[entry{setOf(a, set4, set6).Name, string(append(ifname(link), a.AsSlice()...))}] = ""
	}
	return nil
}

func (p *policy) addForwards(c Config) error {
	var err error
	if p.forwards, err = c.forwards(); err != nil {
		return err
	}
	for from, to := range p.forwards {
		set := setOf(to.Addr(), forward4, forward6)
		p.entries[entry{set.Name, from.key()}] = targetValue(to)
	}
	for _, i := range c.Interfaces {
		home := i.Bridge
		if home == "" {
			home = c.hostLink(i.Index)
		}
		for _, prefix := range i.Addresses {
			for _, to := range p.forwards {
				if to.Addr() == prefix.Addr() {
					p.entries[homeEntry(to.Addr(), home)] = ""
				}
			}
		}
	}
	return nil
}

func homeEntry(a netip.Addr, link string) entry {
	return entry{homeSetOf(a).Name, string(append(a.AsSlice(), ifname(link)...))}
}

// applyPolicy makes the packet filter what c wants: the pinning of addresses,
// NAT, forwards and isolation. It reads what is there for this container, and
// changes what differs in one transaction. It leaves rates to [applyRate], and
// the host-wide forwarding that NAT and forwards need to its caller.
//
// It is to be called when the host's links exist, and before they let packets pass.
// On a running container it comes before a new address is given to the container,
// and after an old one was taken from it. A probe for a duplicate address from
// inside the container is dropped as long as the address is not applied, so that
// probes go out from the host's side. Silent and Blackholed call nothing here:
// everything stays. Down calls [removePolicy], when the links are gone.
//
// Errors: ErrConfig, ErrNoLink, ErrPortInUse.
func applyPolicy(ctx context.Context, c Config) error {
	want, err := c.policy()
	if err != nil {
		return err
	}
	return want.apply(ctx)
}

// preparePolicy is applyPolicy for when some of the host's links may not exist yet.
// Since Linux 6.16 it does all the same; before, what these links may send is left
// to a later call, as a chain there needs its link. Making the table for the first
// container takes the kernel 5 to 30 ms, and a minute when it has to load modules
// on a slow machine.
//
// Errors: ErrConfig, ErrPortInUse.
func preparePolicy(ctx context.Context, c Config) error {
	want, err := c.policy()
	if err != nil {
		return err
	}
	if err = want.apply(ctx); !errors.Is(err, ErrNoLink) {
		return err
	}
	missing, err := want.missingLinks()
	if err != nil {
		return err
	}
	maps.DeleteFunc(want.chains, func(_ string, c chainOf) bool { return slices.Contains(missing, c.chain.Device) })
	return want.apply(ctx)
}

func (p policy) apply(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := openPolicy()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	for range filterTries {
		have, rerr := conn.present(p)
		if rerr != nil {
			return rerr
		}
		queued, qerr := conn.queueChanges(p, have)
		if qerr != nil || !queued {
			return qerr
		}
		err = run(ctx, []step{{"change the packet filter", conn.Flush}})
		if err == nil {
			return removeShapersOf(p.unshaped(have))
		}
		if !raced(err) {
			return err
		}
		missing, findErr := p.missingLinks()
		if findErr != nil {
			return errors.Join(err, findErr)
		}
		if len(missing) > 0 {
			return fmt.Errorf("%w: %s", ErrNoLink, missing[0])
		}
	}
	return fmt.Errorf("change the packet filter: others do not stop changing it: %w", err)
}

// raced says whether a change failed because something is there or is gone that
// was not when it was read.
func raced(err error) bool {
	return isAbsent(err) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)
}

// missingLinks are those that chains need and that do not exist.
func (p policy) missingLinks() (missing []string, err error) {
	h, err := openRoute()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for _, name := range slices.Sorted(maps.Keys(p.chains)) {
		device := p.chains[name].chain.Device
		_, err := h.LinkByName(device)
		switch {
		case errors.As(err, new(netlink.LinkNotFoundError)):
			missing = append(missing, device)
		case err != nil:
			return nil, fmt.Errorf("find link %s: %w", device, err)
		}
	}
	return missing, nil
}
