package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The table that all containers share holds few rules, and the sets of what they
// are for; a container adds and removes only elements, with its tag as comment:
//
//	table inet ctctl {
//		set nat4 { type ipv4_addr; elements = { 10.9.0.5 comment "ct0123456789ab" } }
//		set home4 { type ipv4_addr . ifname; elements = { 10.9.0.5 . "ct0123456789ab" … } }
//		map forward4 {
//			type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
//			elements = { 0.0.0.0 . tcp . 8080 … : 10.9.0.5 . 80 }
//		}
//		chain postrouting {
//			type nat hook postrouting priority srcnat
//			ct status dnat ip daddr . oifname @home4 ip daddr . iifname @home4 masquerade
//			ip saddr . oifname @home4 return
//			ip saddr @nat4 oifname != "ct*" oifname != "lo" masquerade
//		}
//		chain prerouting {
//			type nat hook prerouting priority dstnat
//			dnat ip to ip daddr . meta l4proto . th dport map @forward4
//			ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to 0.0.0.0 . meta l4proto . th dport map @forward4
//		}
//		chain output { type nat hook output priority dstnat; … the same }
//	}
//
// and all of that for IPv6 too. The chains prerouting and output are made with
// the first forward. home4 says behind which link of the host an address is: the
// container's, or its bridge. What is forwarded back to where it came from, by a
// container that uses the host's address, is masqueraded, else the answer would
// not pass the host. What stays on a container's own bridge is never changed.
var (
	natTable = &nftables.Table{Name: "ctctl", Family: nftables.TableFamilyINet}
	natSet4  = &nftables.Set{Table: natTable, Name: "nat4", KeyType: nftables.TypeIPAddr}
	natSet6  = &nftables.Set{Table: natTable, Name: "nat6", KeyType: nftables.TypeIP6Addr}
	homeSet4 = concatSet("home4", nftables.TypeIPAddr, nftables.TypeIFName)
	homeSet6 = concatSet("home6", nftables.TypeIP6Addr, nftables.TypeIFName)
	forward4 = forwardMap("forward4", nftables.TypeIPAddr)
	forward6 = forwardMap("forward6", nftables.TypeIP6Addr)

	sharedSets = []*nftables.Set{natSet4, natSet6, homeSet4, homeSet6, forward4, forward6}

	natChain     = natHook("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	forwardChain = natHook("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	hostChain    = natHook("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
)

func concatSet(name string, types ...nftables.SetDatatype) *nftables.Set {
	return &nftables.Set{Table: natTable, Name: name, Concatenation: true, KeyType: nftables.MustConcatSetType(types...)}
}

func forwardMap(name string, addr nftables.SetDatatype) *nftables.Set {
	s := concatSet(name, addr, nftables.TypeInetProto, nftables.TypeInetService)
	s.IsMap, s.DataType = true, nftables.MustConcatSetType(addr, nftables.TypeInetService)
	return s
}

func natHook(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	return &nftables.Chain{Name: name, Table: natTable, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority}
}

// ipVersion is what the rules of IPv4 and IPv6 differ in.
type ipVersion struct {
	proto          byte
	source, dest   int // offsets in the header
	length         int // of an address
	nat, home, fwd string
	loopback       []byte // how loopback addresses begin
}

var ipVersions = []ipVersion{
	{unix.NFPROTO_IPV4, ip4Source, ip4Dest, 4, natSet4.Name, homeSet4.Name, forward4.Name, []byte{127}},
	{unix.NFPROTO_IPV6, ip6Source, ip6Dest, 16, natSet6.Name, homeSet6.Name, forward6.Name, netip.IPv6Loopback().AsSlice()},
}

func (v ipVersion) is() []expr.Any {
	return matchMeta(expr.MetaKeyNFPROTO, expr.CmpOpEq, v.proto)
}

func (v ipVersion) load(offset int) expr.Any {
	return loadField(expr.PayloadBaseNetworkHeader, offset, v.length, 0)
}

// at matches an address together with a link that is its home.
func (v ipVersion) at(offset int, key expr.MetaKey) []expr.Any {
	return []expr.Any{v.load(offset), loadMeta(key, v.length/4), lookup(v.home)}
}

func natRules() chainOf {
	const dnat = 1 << 5 // IPS_DST_NAT
	forwarded := []expr.Any{
		&expr.Ct{Register: register(0), Key: expr.CtKeySTATUS},
		&expr.Bitwise{SourceRegister: register(0), DestRegister: register(0), Len: 4, Mask: nativeUint32(dnat), Xor: nativeUint32(0)},
		compare(expr.CmpOpNeq, nativeUint32(0)...),
	}
	c := chainOf{chain: natChain, tag: natTable.Name}
	for _, v := range ipVersions {
		back := slices.Concat(v.is(), forwarded, v.at(v.dest, expr.MetaKeyOIFNAME), v.at(v.dest, expr.MetaKeyIIFNAME))
		stays := append(v.is(), v.at(v.source, expr.MetaKeyOIFNAME)...)
		leaves := slices.Concat(v.is(), []expr.Any{v.load(v.source), lookup(v.nat)},
			matchMeta(expr.MetaKeyOIFNAME, expr.CmpOpNeq, []byte("ct")...), // a prefix: no terminating zero
			matchMeta(expr.MetaKeyOIFNAME, expr.CmpOpNeq, ifname("lo")...))
		c.rules = append(
			c.rules,
			filterRule{"hairpin", append(back, &expr.Masq{})},
			filterRule{"bridged", append(stays, verdict(expr.VerdictReturn))},
			filterRule{"nat", append(leaves, &expr.Masq{})},
		)
	}
	return c
}

// forwardRules are the same for what comes in and for what the host itself sends.
// They leave loopback addresses alone, see checkHostAddress.
func forwardRules(chain *nftables.Chain) chainOf {
	c := chainOf{chain: chain, tag: natTable.Name}
	for _, v := range ipVersions {
		words := v.length / 4
		lead := []expr.Any{
			loadMeta(expr.MetaKeyL4PROTO, words),
			loadField(expr.PayloadBaseTransportHeader, 2, 2, words+1),
			&expr.Lookup{SourceRegister: register(0), DestRegister: register(0), IsDestRegSet: true, SetName: v.fwd},
			&expr.NAT{
				Type: expr.NATTypeDestNAT, Family: uint32(v.proto), Specified: true,
				RegAddrMin: register(0), RegAddrMax: register(0), RegProtoMin: register(words), RegProtoMax: register(words),
			},
		}
		local := []expr.Any{
			loadField(expr.PayloadBaseNetworkHeader, v.dest, len(v.loopback), 0),
			compare(expr.CmpOpNeq, v.loopback...),
			&expr.Fib{Register: register(0), FlagDADDR: true, ResultADDRTYPE: true},
			compare(expr.CmpOpEq, nativeUint32(unix.RTN_LOCAL)...),
			&expr.Immediate{Register: register(0), Data: make([]byte, v.length)},
		}
		c.rules = append(
			c.rules,
			filterRule{"forward from one address", slices.Concat(v.is(), []expr.Any{v.load(v.dest)}, lead)},
			filterRule{"forward from all addresses", slices.Concat(v.is(), local, lead)},
		)
	}
	return c
}

// filterTimeout bounds a transaction. The first one makes the kernel load up to a
// dozen modules, by a program for each, before it answers.
const filterTimeout = time.Minute

// openFilter opens a packet filter socket in the namespace behind the
// descriptor ns, 0 for the caller's. The caller closes it with CloseLasting.
func openFilter(ns int, options ...nftables.SockOption) (*nftables.Conn, error) {
	deadline := func(c *netlink.Conn) error { return c.SetDeadline(time.Now().Add(filterTimeout)) }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(ns),
		nftables.WithSockOptions(append(options, deadline)...))
	if err != nil {
		return nil, fmt.Errorf("open packet filter socket: %w", err)
	}
	return conn, nil
}

// queueTable queues what makes the table complete from any state, but for what
// only forwards need.
func queueTable(conn *nftables.Conn) error {
	conn.AddTable(natTable)
	if err := queueSets(conn, sharedSets); err != nil {
		return err
	}
	natRules().queue(conn)
	return nil
}

// queueSets numbers the sets as a transaction wants it. The library would number
// them by a counter that it does not guard.
func queueSets(conn *nftables.Conn, sets []*nftables.Set) error {
	for i, s := range sets {
		set := *s
		set.ID = uint32(i + 1)
		if set.Table == guardTable {
			set.ID += uint32(len(sharedSets))
		}
		if err := conn.AddSet(&set, nil); err != nil {
			return err
		}
	}
	return nil
}

func natSetOf(a netip.Addr) *nftables.Set  { return setOf(a, natSet4, natSet6) }
func homeSetOf(a netip.Addr) *nftables.Set { return setOf(a, homeSet4, homeSet6) }

func setOf(a netip.Addr, v4, v6 *nftables.Set) *nftables.Set {
	if a.Is4() {
		return v4
	}
	return v6
}

// forgetFilter removes the packet filter tables when they have no entry and the
// host has no link of a container any more; else it does nothing.
func forgetFilter(ctx context.Context) (err error) {
	conn, err := openPolicy()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	owned, err := conn.owned(func(string) bool { return true })
	if err != nil || !owned.empty() {
		return err
	}
	links, err := Links(ctx)
	if err != nil || len(links) > 0 {
		return err
	}
	for _, t := range []*nftables.Table{natTable, guardTable} {
		conn.DelTable(t)
		if err := conn.Flush(); err != nil && !isAbsent(err) {
			return fmt.Errorf("delete table %s: %w", t.Name, err)
		}
	}
	return nil
}
