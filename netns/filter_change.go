package netns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// queueChanges queues what has to change, and says whether anything has.
func (c *filterConn) queueChanges(p policy, have present) (queued bool, err error) {
	if err := p.refuseTaken(have); err != nil {
		return false, err
	}
	shared := len(p.entries) > 0 && !have.nat && p.shares()
	if shared {
		if err := queueTable(c.Conn); err != nil {
			return false, err
		}
	}
	if len(p.forwards) > 0 && !have.forwards {
		forwardRules(forwardChain).queue(c.Conn)
		forwardRules(hostChain).queue(c.Conn)
		shared = true
	}
	chains, err := c.queueChains(p, have)
	if err != nil {
		return false, err
	}
	elements, err := c.queueElements(p, have)
	if err != nil {
		return false, err
	}
	sets := c.queueUnusedSets(p, have)
	return shared || chains || elements || sets, nil
}

// shares says whether the container needs the table that all share.
func (p policy) shares() bool {
	for e := range p.entries {
		if p.sets[e.set].Table == natTable {
			return true
		}
	}
	return false
}

// queueChains queues the chains of links, and before them the sets they look
// into.
func (c *filterConn) queueChains(p policy, have present) (queued bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if _, wanted := p.chains[name]; !wanted && !p.shapes(name) {
			c.DelChain(&nftables.Chain{Table: guardTable, Name: name})
			queued = true
		}
	}
	var absent []*nftables.Set
	for _, set := range p.own {
		if have.elements[set.Name] == nil {
			absent = append(absent, set)
		}
	}
	table := len(absent) > 0
	if table {
		c.AddTable(guardTable)
	}
	if err := queueSets(c.Conn, absent); err != nil {
		return false, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.chains)) {
		if have.chains[name] {
			continue
		}
		if !table {
			c.AddTable(guardTable)
			table = true
		}
		p.chains[name].queue(c.Conn)
	}
	return queued || table, nil
}

// queueElements queues the elements that are missing or too many. One that exists
// would keep the comment and the data of its former owner, so it is replaced.
func (c *filterConn) queueElements(p policy, have present) (queued bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.sets)) {
		set := p.sets[name]
		var gone, added []nftables.SetElement
		for key, e := range have.elements[name] {
			_, wanted := p.entries[entry{name, key}]
			if e.owner == p.tag && !wanted {
				gone = append(gone, nftables.SetElement{Key: []byte(key)})
			}
		}
		for at, value := range p.entries {
			if at.set != name {
				continue
			}
			e, exists := have.elements[name][at.key]
			if exists && e == (element{value, p.tag}) {
				continue
			}
			if exists {
				gone = append(gone, nftables.SetElement{Key: []byte(at.key)})
			}
			added = append(added, nftables.SetElement{Key: []byte(at.key), Val: []byte(value), Comment: p.tag})
		}
		if len(gone) > 0 {
			if err := c.SetDeleteElements(set, gone); err != nil {
				return false, err
			}
		}
		if len(added) > 0 {
			if err := c.SetAddElements(set, added); err != nil {
				return false, err
			}
		}
		queued = queued || len(gone)+len(added) > 0
	}
	return queued, nil
}

// queueUnusedSets queues the removal of the container's own sets when no link of
// it is guarded any more.
func (c *filterConn) queueUnusedSets(p policy, have present) (queued bool) {
	if len(p.own) > 0 {
		return false
	}
	for name, set := range p.sets {
		if set.Table == guardTable && have.elements[name] != nil {
			c.DelSet(set)
			queued = true
		}
	}
	return queued
}

// refuseTaken refuses forwards of endpoints that somebody else has: another
// container, or for a new one a process of the host.
func (p policy) refuseTaken(have present) error {
	for _, want := range slices.SortedFunc(maps.Keys(p.forwards), func(a, b endpoint) int {
		return strings.Compare(a.String(), b.String())
	}) {
		set := setOf(want.addr.Addr(), forward4, forward6).Name
		if have.elements[set][want.key()].owner == p.tag {
			continue
		}
		for key, e := range have.elements[set] {
			taken, ok := endpointOf(key)
			if ok && e.owner != p.tag && want.meets(taken) {
				return fmt.Errorf("%w: %s is forwarded to container %s", ErrPortInUse, taken, strings.TrimPrefix(e.owner, "ct"))
			}
		}
		who, err := listener(want)
		if err != nil {
			return err
		}
		if who != "" {
			return fmt.Errorf("%w: %s is served by %s", ErrPortInUse, want, who)
		}
	}
	return nil
}

// owned is what the packet filter holds of some containers.
type owned struct {
	entries      map[string][]entry // by tag
	chains, sets map[string][]string
}

func (o owned) empty() bool { return len(o.entries)+len(o.chains)+len(o.sets) == 0 }

func (o owned) tags() []string {
	tags := make(map[string]bool)
	for tag := range o.entries {
		tags[tag] = true
	}
	for _, names := range []map[string][]string{o.chains, o.sets} {
		for tag := range names {
			tags[tag] = true
		}
	}
	return slices.Sorted(maps.Keys(tags))
}

// owned finds everything whose tag matches.
func (c *filterConn) owned(match func(tag string) bool) (owned, error) {
	o := owned{map[string][]entry{}, map[string][]string{}, map[string][]string{}}
	for _, set := range sharedSets {
		elements, err := c.elements(set, anyElement)
		if err != nil {
			return o, err
		}
		for key, e := range elements {
			if match(e.owner) {
				o.entries[e.owner] = append(o.entries[e.owner], entry{set.Name, key})
			}
		}
	}
	for kind, into := range map[int]map[string][]string{unix.NFT_MSG_GETCHAIN: o.chains, unix.NFT_MSG_GETSET: o.sets} {
		names, err := c.names(kind, guardTable, "")
		if err != nil {
			return o, err
		}
		for _, name := range names {
			if tag := tagOfLink(name); match(tag) {
				into[tag] = append(into[tag], name)
			}
		}
	}
	return o, nil
}

// removePolicy removes everything that the packet filter has of a container, and
// the devices of its rates. What is absent is no error. It is for Down, with the
// links there or not.
func removePolicy(ctx context.Context, uid string) error {
	_, err := removeOwned(ctx, func(tag string) bool { return tag == tagOf(uid) }, false)
	return err
}

// reapPolicy removes the same of all containers for which keep says no, and
// returns the first twelve digits of their uids. Of those kept it removes the
// devices whose links are gone: they come back with the links.
func reapPolicy(ctx context.Context, keep func(uid12 string) bool) (reaped []string, err error) {
	return removeOwned(ctx, func(tag string) bool { return !keep(strings.TrimPrefix(tag, "ct")) }, true)
}

func removeOwned(ctx context.Context, match func(tag string) bool, orphans bool) (removed []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := openPolicy()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	for range filterTries {
		var have owned
		if have, err = conn.owned(match); err != nil {
			return nil, err
		}
		removed = append(removed, have.tags()...)
		if err = conn.remove(ctx, have); !raced(err) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("clean the packet filter: %w", err)
	}
	shaped, err := removeShapers(ctx, match, orphans)
	removed = append(removed, shaped...)
	for i, tag := range removed {
		removed[i] = strings.TrimPrefix(tag, "ct")
	}
	slices.Sort(removed)
	return slices.Compact(removed), err
}

// remove removes one container after the other, each in one transaction.
func (c *filterConn) remove(ctx context.Context, have owned) error {
	shared := make(map[string]*nftables.Set)
	for _, set := range sharedSets {
		shared[set.Name] = set
	}
	for _, tag := range have.tags() {
		for _, name := range have.chains[tag] {
			c.DelChain(&nftables.Chain{Table: guardTable, Name: name})
		}
		for _, name := range have.sets[tag] {
			c.DelSet(&nftables.Set{Table: guardTable, Name: name})
		}
		for _, e := range have.entries[tag] {
			if err := c.SetDeleteElements(shared[e.set], []nftables.SetElement{{Key: []byte(e.key)}}); err != nil {
				return err
			}
		}
		if err := run(ctx, []step{{"remove " + tag + " from the packet filter", c.Flush}}); err != nil {
			return err
		}
	}
	return nil
}
