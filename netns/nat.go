package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The table holds one rule for each IP version, and the set of the container
// addresses that the rule is for; a container adds and removes only elements:
//
//	table inet ctctl {
//		set nat4 { type ipv4_addr; elements = { 10.9.0.5 comment "ct0123456789ab" } }
//		set nat6 { type ipv6_addr }
//		chain postrouting {
//			type nat hook postrouting priority srcnat
//			meta nfproto ipv4 ip saddr @nat4 oifname != "ct*" oifname != "lo" masquerade
//			meta nfproto ipv6 ip6 saddr @nat6 oifname != "ct*" oifname != "lo" masquerade
//		}
//	}
var (
	natTable = &nftables.Table{Name: "ctctl", Family: nftables.TableFamilyINet}
	natSet4  = &nftables.Set{Table: natTable, Name: "nat4", KeyType: nftables.TypeIPAddr}
	natSet6  = &nftables.Set{Table: natTable, Name: "nat6", KeyType: nftables.TypeIP6Addr}
	natChain = &nftables.Chain{
		Name:     "postrouting",
		Table:    natTable,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
)

// openFilter opens a packet filter socket in the namespace behind the
// descriptor ns, 0 for the caller's. The caller closes it with CloseLasting.
func openFilter(ns int) (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns),
		nftables.WithSockOptions(func(c *netlink.Conn) error {
			return c.SetDeadline(time.Now().Add(answerTimeout))
		}))
	if err != nil {
		return nil, fmt.Errorf("open packet filter socket: %w", err)
	}
	return conn, nil
}

func natSetOf(a netip.Addr) *nftables.Set {
	if a.Is4() {
		return natSet4
	}
	return natSet6
}

// addNAT puts the addresses into the sets, and makes table and rules when they
// are missing. The elements carry the name of their link as comment. It looks
// first: a transaction takes the kernel 5 to 30 ms, and resuming a container
// needs none.
func addNAT(name string, addrs []netip.Addr) (err error) {
	if len(addrs) == 0 {
		return nil
	}
	conn, err := openFilter(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	entries, table, err := natEntries(conn)
	if err != nil {
		return err
	}
	if !table {
		if err := queueTable(conn); err != nil {
			return err
		}
	}
	if err := queueElements(conn, name, addrs, entries); err != nil {
		return err
	}
	return conn.Flush()
}

// queueElements queues the elements that are not there yet. One that exists
// would keep the comment of its former owner, so it is replaced.
func queueElements(conn *nftables.Conn, name string, addrs []netip.Addr, entries map[netip.Addr]string) error {
	for _, a := range addrs {
		owner, exists := entries[a]
		if exists && owner == name {
			continue
		}
		set := natSetOf(a)
		element := []nftables.SetElement{{Key: a.AsSlice(), Comment: name}}
		if exists {
			if err := conn.SetDeleteElements(set, element); err != nil {
				return err
			}
		}
		if err := conn.SetAddElements(set, element); err != nil {
			return err
		}
	}
	return nil
}

// queueTable queues what makes the table complete from any state. Flushing the
// chain first keeps two processes that do this at once from doubling the rules.
func queueTable(conn *nftables.Conn) error {
	conn.AddTable(natTable)
	conn.AddChain(natChain)
	conn.FlushChain(natChain)
	for _, r := range []struct {
		set            *nftables.Set
		proto          byte
		offset, length uint32 // of the source address in the IP header
	}{
		{natSet4, unix.NFPROTO_IPV4, 12, 4},
		{natSet6, unix.NFPROTO_IPV6, 8, 16},
	} {
		// AddSet numbers the set it is given: a copy keeps ours shareable.
		set := *r.set
		if err := conn.AddSet(&set, nil); err != nil {
			return err
		}
		conn.AddRule(&nftables.Rule{Table: natTable, Chain: natChain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{r.proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: r.offset, Len: r.length},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte("ct")}, // a prefix: no terminating zero
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.PutString("lo\x00")},
			&expr.Masq{},
		}})
	}
	return nil
}

// removeNAT takes the addresses out of the sets; absent ones are no error.
func removeNAT(addrs []netip.Addr) error {
	return removeEntries(func(a netip.Addr, _ string) bool { return slices.Contains(addrs, a) })
}

// reapNAT removes the entries of links for which keep says no.
func reapNAT(keep func(name string) bool) error {
	return removeEntries(func(_ netip.Addr, name string) bool { return !keep(name) })
}

// removeEntries removes the entries that match, in one transaction. An entry
// that somebody else removes meanwhile fails all of it, so it looks again.
func removeEntries(match func(a netip.Addr, name string) bool) (err error) {
	const tries = 5
	conn, err := openFilter(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	for range tries {
		var entries map[netip.Addr]string
		entries, _, err = natEntries(conn)
		if err != nil {
			return err
		}
		for a, name := range entries {
			if !match(a, name) {
				continue
			}
			if err := conn.SetDeleteElements(natSetOf(a), []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
				return err
			}
		}
		// Flush does nothing when nothing is queued.
		if err = conn.Flush(); !isAbsent(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("remove NAT entries: %w", err)
	}
	return nil
}

// natEntries returns the addresses in the sets with the names of their links.
func natEntries(conn *nftables.Conn) (entries map[netip.Addr]string, table bool, err error) {
	// The errors of listing a set hide their cause, so presence is asked first.
	tables, err := conn.ListTablesOfFamily(natTable.Family)
	if err != nil {
		return nil, false, fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		table = table || t.Name == natTable.Name
	}
	if !table {
		return nil, false, nil
	}
	entries = make(map[netip.Addr]string)
	for _, set := range []*nftables.Set{natSet4, natSet6} {
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return nil, true, fmt.Errorf("list set %s: %w", set.Name, err)
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				entries[a] = e.Comment
			}
		}
	}
	return entries, true, nil
}

// Forget removes the packet filter table when it has no entry and the host has
// no link of a container any more; else it does nothing. Forwarding stays on.
// It must not run beside an Attach or Join for the first container: the caller
// holds the lock that keeps containers from starting.
func Forget(ctx context.Context) (err error) {
	defer wrapOp("forget network", "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	conn, err := openFilter(0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	entries, table, err := natEntries(conn)
	if err != nil || !table || len(entries) > 0 {
		return err
	}
	links, err := Links(ctx)
	if err != nil || len(links) > 0 {
		return err
	}
	conn.DelTable(natTable)
	if err := conn.Flush(); err != nil && !isAbsent(err) {
		return fmt.Errorf("delete table: %w", err)
	}
	return nil
}
