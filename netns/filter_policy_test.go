package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// ruleset is everything in the packet filter but handles and counters.
func ruleset(t testing.TB) []string {
	t.Helper()
	conn, err := openPolicy()
	must(t, err)
	defer func() { must(t, conn.close()) }()
	var lines []string
	tables, err := conn.ListTables()
	must(t, err)
	for _, table := range tables {
		name := fmt.Sprintf("%d %s", table.Family, table.Name)
		lines = append(lines, "table "+name)
		sets, err := conn.GetSets(table)
		must(t, err)
		for _, s := range sets {
			lines = append(lines, fmt.Sprintf("set %s %s", name, s.Name))
			elements, err := conn.elements(s, anyElement)
			must(t, err)
			for key, e := range elements {
				lines = append(lines, fmt.Sprintf("element %s %s %x %x %s", name, s.Name, key, e.value, e.owner))
			}
		}
		chains, err := conn.ListChainsOfTableFamily(table.Family)
		must(t, err)
		for _, c := range chains {
			if c.Table.Name != table.Name {
				continue
			}
			rules, err := conn.rules(c)
			must(t, err)
			for i, r := range rules {
				line := fmt.Sprintf("rule %s %s %d %s", name, c.Name, i, r.comment)
				for _, e := range r.expressions() {
					if kind := text(attribute(e, unix.NFTA_EXPR_NAME)); kind != "counter" {
						line += fmt.Sprintf(" %s %x", kind, attribute(e, unix.NFTA_EXPR_DATA))
					}
				}
				lines = append(lines, line)
			}
			lines = append(lines, fmt.Sprintf("chain %s %s", name, c.Name))
		}
	}
	sort.Strings(lines)
	return lines
}

// full is container number n with one link of each kind, and everything on.
func full(n int) Config {
	c := config(n, fmt.Sprintf("10.9.0.%d/32", n), fmt.Sprintf("fd09::%d/128", n))
	c.Interfaces[0].NAT = true
	c.Interfaces = append(c.Interfaces, Interface{
		Name: "eth1", Index: 1, Bridge: "br0", NAT: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.8.0.%d/24", n))},
	})
	c.Forwards = []Forward{
		{Protocol: "tcp", HostPort: uint16(8000 + n), Port: 80},
		{Protocol: "udp", HostPort: uint16(8000 + n), Port: 53, HostAddress: netip.MustParseAddr("192.0.2.1")},
	}
	return c
}

// policies are configurations of container 1 that differ in one thing each.
func policies() map[string]Config {
	edit := func(do func(c *Config)) Config {
		c := full(1)
		do(&c)
		return c
	}
	return map[string]Config{
		"full":        full(1),
		"bare":        edit(func(c *Config) { c.Interfaces, c.Forwards = nil, nil }),
		"no address":  edit(func(c *Config) { c.Interfaces[0].Addresses, c.Interfaces[1].Addresses, c.Forwards = nil, nil, nil }),
		"one link":    edit(func(c *Config) { c.Interfaces = c.Interfaces[:1] }),
		"other MAC":   edit(func(c *Config) { c.Interfaces[0].MAC = strangeMAC.String() }),
		"no NAT":      edit(func(c *Config) { c.Interfaces[0].NAT, c.Interfaces[1].NAT = false, false }),
		"no filter":   edit(func(c *Config) { c.Interfaces[0].NoFilter, c.Interfaces[1].NoFilter = true, true }),
		"half filter": edit(func(c *Config) { c.Interfaces[1].NoFilter = true }),
		"no forwards": edit(func(c *Config) { c.Forwards = nil }),
		"other port":  edit(func(c *Config) { c.Forwards[0].Port = 81 }),
		"isolated":    edit(func(c *Config) { c.Isolated = true }),
		"isolated without filter": edit(func(c *Config) {
			c.Isolated, c.Interfaces[0].NoFilter, c.Interfaces[1].NoFilter = true, true, true
		}),
		"another address": edit(func(c *Config) {
			c.Interfaces[0].Addresses = append(c.Interfaces[0].Addresses, netip.MustParsePrefix("10.9.0.77/32"))
		}),
	}
}

func plugFull(t *testing.T) {
	t.Helper()
	h := requireHost(t)
	out, ct := newSpace(t, false), newSpace(t, true)
	bridgeTo(t, h, out)
	plug(t, ct, full(1))
	must(t, removePolicy(ctx, full(1).UID))
	must(t, dropTables())
}

func TestEveryChangeOfPolicyEndsAsIfItWereTheFirst(t *testing.T) {
	plugFull(t)
	fresh := map[string][]string{}
	for name, c := range policies() {
		must(t, preparePolicy(ctx, full(2)))
		must(t, applyPolicy(ctx, c))
		fresh[name] = ruleset(t)
		must(t, removePolicy(ctx, c.UID))
		must(t, removePolicy(ctx, full(2).UID))
		must(t, dropTables())
	}
	must(t, preparePolicy(ctx, full(2)))
	for from, a := range policies() {
		for to, b := range policies() {
			must(t, applyPolicy(ctx, a))
			must(t, applyPolicy(ctx, b))
			// The chains for forwards stay until the table goes.
			if diff := cmp.Diff(fresh[to], ruleset(t)); diff != "" {
				t.Errorf("from %s to %s: %s", from, to, diff)
			}
			before := generation(t)
			must(t, applyPolicy(ctx, b))
			if after := generation(t); after != before {
				t.Errorf("%s applied twice makes %d transactions", to, after-before)
			}
			report, err := PolicyOf(ctx, b)
			must(t, err)
			if !report.InEffect() {
				t.Errorf("%s: %+v", to, report)
			}
		}
	}
	must(t, removePolicy(ctx, full(2).UID))
}

func dropTables() error {
	conn, err := openFilter(0)
	if err != nil {
		return err
	}
	for _, table := range []*nftables.Table{natTable, guardTable} {
		conn.DelTable(table)
		if err := conn.Flush(); err != nil && !isAbsent(err) {
			return err
		}
	}
	return conn.CloseLasting()
}

func TestRemovalLeavesTheRulesetAsItWas(t *testing.T) {
	plugFull(t)
	conn, err := openFilter(0)
	must(t, err)
	foreign := conn.AddTable(&nftables.Table{Name: "mine", Family: nftables.TableFamilyINet})
	conn.AddChain(&nftables.Chain{Name: "ct000000000001.in", Table: foreign})
	must(t, conn.Flush())
	defer func() {
		conn.DelTable(foreign)
		must(t, errors.Join(conn.Flush(), conn.CloseLasting()))
	}()
	must(t, preparePolicy(ctx, full(2)))
	before := ruleset(t)
	for name, c := range policies() {
		must(t, applyPolicy(ctx, c))
		must(t, removePolicy(ctx, c.UID))
		if diff := cmp.Diff(before, ruleset(t)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		must(t, removePolicy(ctx, c.UID))
	}
	must(t, removePolicy(ctx, full(2).UID))
}

func TestReapingSparesWhoIsKept(t *testing.T) {
	h := requireHost(t)
	spaces := []space{newSpace(t, true), newSpace(t, true), newSpace(t, true)}
	for i, ct := range spaces {
		n := i + 1
		c := config(n, fmt.Sprintf("10.9.0.%d/32", n))
		c.Interfaces[0].NAT = true
		c.Interfaces[0].Rate.EgressBits = 1e6
		plug(t, ct, c)
	}
	reaped, err := reapPolicy(ctx, func(uid12 string) bool { return uid12 == "000000000002" })
	must(t, err)
	if diff := cmp.Diff([]string{"000000000001", "000000000003"}, reaped); diff != "" {
		t.Error(diff)
	}
	left := strings.Join(ruleset(t), "\n")
	if strings.Contains(left, "ct000000000001") || !strings.Contains(left, "ct000000000002") || strings.Contains(left, "ct000000000003") {
		t.Errorf("left:\n%s", left)
	}
	for n, want := range map[int]bool{1: false, 2: true, 3: false} {
		_, err := h.LinkByName(fmt.Sprintf("cr%012x", n))
		if (err == nil) != want {
			t.Errorf("device of container %d: %v", n, err)
		}
	}
}

func TestFaultInTheTransactionChangesNothing(t *testing.T) {
	plugFull(t)
	must(t, preparePolicy(ctx, full(2)))
	states := []string{"full", "no filter", "isolated", "bare"}
	for i, from := range states {
		to := states[(i+1)%len(states)]
		must(t, applyPolicy(ctx, policies()[from]))
		before := ruleset(t)
		for op, do := range map[string]func(n int) (bool, error){
			"apply": func(n int) (bool, error) {
				faulty, met := faultAt(n)
				err := applyPolicy(faulty, policies()[to])
				return *met, err
			},
			"remove": func(n int) (bool, error) {
				if from == "bare" {
					return true, errors.New("there is nothing to remove")
				}
				faulty, met := faultAt(n)
				err := removePolicy(faulty, policies()[from].UID)
				return *met, err
			},
		} {
			met, err := do(0)
			if !met || err == nil {
				t.Fatalf("%s from %s to %s: no fault: %v", op, from, to, err)
			}
			if diff := cmp.Diff(before, ruleset(t)); diff != "" {
				t.Errorf("%s from %s to %s: %s", op, from, to, diff)
			}
		}
	}
	must(t, removePolicy(ctx, full(2).UID))
}

// Whatever another hand has done to the rules is put right.
func TestPolicyIsRestoredAfterTampering(t *testing.T) {
	plugFull(t)
	c := full(1)
	must(t, applyPolicy(ctx, c))
	want := ruleset(t)
	conn, err := openPolicy()
	must(t, err)
	defer func() { must(t, conn.close()) }()
	set4, set6 := guardSets(tagOf(c.UID))
	for name, tamper := range map[string]func(){
		"chain flushed":        func() { conn.FlushChain(guardChain("ct0000000000011", ".in", nftables.ChainHookIngress)) },
		"chain deleted":        func() { conn.DelChain(guardChain("ct000000000001", ".in", nftables.ChainHookIngress)) },
		"NAT flushed":          func() { conn.FlushChain(natChain) },
		"forwards flushed":     func() { conn.FlushChain(hostChain) },
		"addresses flushed":    func() { conn.FlushSet(set4); conn.FlushSet(set6) },
		"NAT elements flushed": func() { conn.FlushSet(natSet4) },
		"address added": func() {
			must(t, conn.SetAddElements(natSet4, []nftables.SetElement{{Key: []byte{1, 2, 3, 4}, Comment: tagOf(c.UID)}}))
		},
		"chain added": func() { conn.AddChain(&nftables.Chain{Name: "ct0000000000012.in", Table: guardTable}) },
	} {
		tamper()
		must(t, conn.Flush())
		report, err := PolicyOf(ctx, c)
		must(t, err)
		if report.InEffect() {
			t.Errorf("%s: not reported", name)
		}
		must(t, applyPolicy(ctx, c))
		if diff := cmp.Diff(want, ruleset(t)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// many applies the policies of so many containers with three addresses each.
func many(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		c := config(1000+i, fmt.Sprintf("10.7.%d.1/32", i), fmt.Sprintf("10.7.%d.2/32", i), fmt.Sprintf("fd07::%x/128", i+1))
		c.Interfaces[0].NAT = true
		must(t, preparePolicy(ctx, c))
	}
	t.Cleanup(func() {
		_, err := reapPolicy(ctx, func(string) bool { return false })
		must(t, err)
		must(t, Forget(ctx))
	})
}

func BenchmarkPolicyWithNothingToDo(b *testing.B) {
	for _, others := range []int{0, 200} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			requireHost(b)
			many(b, others)
			c := config(1, "10.9.0.5/32", "10.9.0.6/32", "fd09::5/128")
			c.Interfaces[0].NAT = true
			plug(b, newSpace(b, true), c)
			start := cpuTime(b)
			for b.Loop() {
				must(b, applyPolicy(ctx, c))
			}
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func BenchmarkPolicyAddAndRemoveAddress(b *testing.B) {
	for _, others := range []int{0, 200} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			requireHost(b)
			many(b, others)
			with := config(1, "10.9.0.5/32", "10.9.0.6/32", "fd09::5/128")
			with.Interfaces[0].NAT = true
			without := with
			without.Interfaces = []Interface{with.Interfaces[0]}
			without.Interfaces[0].Addresses = with.Interfaces[0].Addresses[:1]
			plug(b, newSpace(b, true), with)
			for b.Loop() {
				must(b, applyPolicy(ctx, with))
				must(b, applyPolicy(ctx, without))
			}
		})
	}
}

// natEntries returns the addresses in the sets of NAT with their owners.
func natEntries(conn *nftables.Conn) (entries map[netip.Addr]string, table bool, err error) {
	tables, err := conn.ListTablesOfFamily(natTable.Family)
	if err != nil {
		return nil, false, err
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
			return nil, true, err
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				entries[a] = e.Comment
			}
		}
	}
	return entries, true, nil
}

func TestAPacketFilterThatOthersKeepChangingIsGivenUpWithTheReason(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	plugged(t, h, ct, c)
	c.Interfaces[0].Addresses = prefixes("10.9.0.5/32", "10.9.0.6/32")
	tries := 0
	busy := context.WithValue(ctx, faultKey{}, func(what string) error {
		if what != "change the packet filter" {
			return nil
		}
		tries++
		return unix.EBUSY
	})
	if err := applyPolicy(busy, c); !errors.Is(err, unix.EBUSY) || tries != filterTries {
		t.Errorf("after %d tries: %v", tries, err)
	}
	must(t, applyPolicy(ctx, c))
}
