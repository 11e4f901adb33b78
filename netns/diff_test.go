package netns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// edit is a way from one configuration to another, and the changes that lead there.
type edit struct {
	from, to Config
	stage    Stage
	want     []string
}

// edits are of one container.
func edits() map[string]edit {
	changed := func(c Config, change func(*Interface)) Config {
		c.Interfaces = slices.Clone(c.Interfaces)
		change(&c.Interfaces[0])
		return c
	}
	routed := config(1, "10.9.0.5/32", "fd09::5/128")
	near := config(1, "10.0.0.5/32")
	onBridge := config(1, "10.9.0.5/24")
	onBridge.Interfaces[0].Bridge = "br0"
	two := config(1, "10.9.0.5/32")
	two.Interfaces = append(two.Interfaces, Interface{Name: "eth1", Index: 1, Addresses: prefixes("10.9.0.6/32")})
	return map[string]edit{
		"nothing": {routed, routed, Joined, nil},
		"an address more": {routed, changed(routed, func(i *Interface) { i.Addresses = append(i.Addresses[:2:2], prefixes("10.9.0.6/32")...) }), Joined, []string{
			"add address 10.9.0.6/32 in the container",
			"add neighbour 10.9.0.6",
			"add route 10.9.0.6/32",
		}},
		"another address": {routed, changed(routed, func(i *Interface) { i.Addresses = prefixes("10.9.0.6/32", "fd09::5/128") }), Joined, []string{
			"add address 10.9.0.6/32 in the container",
			"add neighbour 10.9.0.6",
			"add route 10.9.0.6/32",
			"remove address 10.9.0.5/32 in the container",
			"remove route 10.9.0.5/32",
			"remove neighbour 10.9.0.5",
		}},
		"an address that others look for": {near, changed(near, func(i *Interface) { i.Addresses = prefixes("10.0.0.6/32") }), Joined, []string{
			"add address 10.0.0.6/32 in the container",
			"add neighbour 10.0.0.6",
			"add route 10.0.0.6/32",
			"add proxy entry 10.0.0.6 on up0",
			"add proxy entry 10.0.0.6 on up1",
			"remove proxy entry 10.0.0.5 on up0",
			"remove proxy entry 10.0.0.5 on up1",
			"remove address 10.0.0.5/32 in the container",
			"remove route 10.0.0.5/32",
			"remove neighbour 10.0.0.5",
		}},
		"another network": {
			changed(onBridge, func(i *Interface) { i.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.1")} }),
			changed(onBridge, func(i *Interface) {
				i.Addresses, i.Gateways = prefixes("10.8.0.5/24"), []netip.Addr{netip.MustParseAddr("10.8.0.1")}
			}), Joined,
			[]string{
				"add address 10.8.0.5/24 in the container",
				"change route 0.0.0.0/0 via 10.8.0.1 in the container",
				"remove address 10.9.0.5/24 in the container",
			},
		},
		"another prefix length of IPv6": {
			changed(onBridge, func(i *Interface) { i.Addresses = prefixes("fd09::5/64") }),
			changed(onBridge, func(i *Interface) { i.Addresses = prefixes("fd09::5/48") }), Joined,
			[]string{"remove address fd09::5/64 in the container", "add address fd09::5/48 in the container"},
		},
		"MTU": {routed, changed(routed, func(i *Interface) { i.MTU = 9000 }), Joined, []string{
			"change link eth0 in the container",
			"change link ct000000000001",
		}},
		"the second of two interfaces goes": {two, config(1, "10.9.0.5/32"), Joined, []string{
			"remove rule from 10.9.0.6/32 to table 254 in the container",
			"remove rule from 10.9.0.6/32 to table 19901 in the container",
			"remove link ct0000000000011",
		}},
		"held": {routed, routed, Held, []string{
			"remove route 10.9.0.5/32",
			"remove route fd09::5/128",
			"remove neighbour 10.9.0.5",
			"remove neighbour fd09::5",
			"remove address 169.254.1.1/32",
			"remove address fe80::1/64",
			"change link ct000000000001",
		}},
		"down":       {routed, routed, Down, []string{"remove link ct000000000001"}},
		"blackholed": {config(1, "10.9.0.5/32"), config(1, "10.9.0.5/32"), Blackholed, []string{"change route 10.9.0.5/32 to a blackhole", "remove link ct000000000001"}},
	}
}

func TestChangesComeInTheirOrder(t *testing.T) {
	for name, test := range edits() {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			must(t, f.apply(Joined, test.from, nil))
			_, changes := f.plan(test.stage, test.to, &test.from)
			var got []string
			for _, c := range changes {
				if c.kind == kindAddress && c.dst.Addr().IsLinkLocalUnicast() && c.inside {
					continue
				}
				got = append(got, c.String())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// randomConfig makes a valid configuration; small pools make two of them have
// much in common.
func randomConfig(r *rand.Rand) Config {
	for {
		c := Config{UID: "0000000000010000"}
		for range r.IntN(4) {
			c.Interfaces = append(c.Interfaces, randomInterface(r))
		}
		if r.IntN(4) == 0 {
			c.Forwards = []Forward{{Protocol: "tcp", HostPort: 80, Port: 80}}
		}
		if c.Validate() == nil {
			return c
		}
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomInterface(r *rand.Rand) Interface {
	i := Interface{
		Index: r.IntN(4), NAT: r.IntN(2) == 0,
		Bridge: pick(r, "", "", "", "br0", "br1", OwnBridge),
		MTU:    pick(r, 0, 0, 0, 1400, 9000),
		MAC:    pick(r, "", "", "", "02:00:00:00:00:01", "02:00:00:00:00:02"),
	}
	i.Name = fmt.Sprintf("eth%d", i.Index)
	if r.IntN(5) == 0 {
		i.Name = fmt.Sprintf("lan%d", i.Index)
	}
	for range r.IntN(4) {
		i.Addresses = append(i.Addresses, netip.MustParsePrefix(pick(
			r,
			fmt.Sprintf("10.0.0.%d/%d", 5+r.IntN(3), pick(r, 24, 32)),
			fmt.Sprintf("10.0.%d.%d/24", 1+r.IntN(3), 5+r.IntN(3)),
			fmt.Sprintf("10.158.0.%d/16", 5+r.IntN(3)),
			fmt.Sprintf("fd00:0:0:%d::%d/%d", r.IntN(2), 5+r.IntN(3), pick(r, 48, 64)),
		)))
	}
	if i.Bridge != "" && len(i.Addresses) > 0 && r.IntN(2) == 0 {
		i.Gateways = []netip.Addr{i.Addresses[0].Masked().Addr().Next()}
	}
	for range r.IntN(2) {
		to := netip.MustParsePrefix(pick(r, "10.1.0.0/16", "10.2.0.0/16", "fd01::/64"))
		via := netip.Addr{}
		if len(i.Gateways) > 0 && i.Gateways[0].Is4() == to.Addr().Is4() {
			via = i.Gateways[0]
		}
		i.Routes = append(i.Routes, Route{To: to, Via: via, Metric: r.IntN(3)})
	}
	return i
}

func randomStage(r *rand.Rand) Stage { return pick(r, Joined, Joined, Joined, Held, Blackholed, Down) }

func explain(t *testing.T, seed uint64, a, b Config, format string, args ...any) {
	t.Helper()
	t.Fatalf("seed %d: %s\nfrom %+v\nto %+v", seed, fmt.Sprintf(format, args...), a.Interfaces, b.Interfaces)
}

// from is a fake host on which a configuration has been applied.
func from(t *testing.T, r *rand.Rand, seed uint64, a Config) *fake {
	t.Helper()
	f := newFake()
	if err := f.apply(Joined, a, nil); err != nil {
		explain(t, seed, Config{}, a, "%v", err)
	}
	if stage := randomStage(r); stage != Joined {
		if err := f.apply(stage, a, &a); err != nil {
			explain(t, seed, a, a, "stage %d: %v", stage, err)
		}
	}
	if r.IntN(6) == 0 {
		f.restarted()
	}
	return f
}

func TestEveryConfigIsReachedFromEveryOther(t *testing.T) {
	const pairs = 10_000
	for seed := range uint64(pairs) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b, stage := randomConfig(r), randomConfig(r), randomStage(r)
		f := from(t, r, seed, a)
		f.seen = neverWithoutAddress(t, f, seed, a, b, stage)
		want, changes := f.plan(stage, b, &a)
		for _, c := range changes {
			if err := f.perform(c); err != nil {
				explain(t, seed, a, b, "stage %d: %v", stage, err)
			}
		}
		if err := f.leftovers(want); err != nil {
			explain(t, seed, a, b, "stage %d: %v", stage, err)
		}
		if _, more := f.plan(stage, b, nil); len(more) > 0 {
			explain(t, seed, a, b, "stage %d: the second time it would %s", stage, more[0])
		}
	}
}

// neverWithoutAddress checks, for every interface that stays and has addresses of
// an IP version before and after, that it is never without one; but for an IPv6
// address that only gets another prefix length.
func neverWithoutAddress(t *testing.T, f *fake, seed uint64, a, b Config, stage Stage) func(change) {
	t.Helper()
	count := func(link string, v4 bool) int {
		n := 0
		for i := range f.have {
			if i.kind == kindAddress && i.inside && i.link == link && i.dst.Addr().Is4() == v4 && !i.dst.Addr().IsLinkLocalUnicast() {
				n++
			}
		}
		return n
	}
	type place struct {
		link string
		v4   bool
	}
	watched := map[place]bool{}
	for _, x := range a.Interfaces {
		for _, y := range b.Interfaces {
			for _, v4 := range []bool{true, false} {
				has := func(i Interface) bool { return v4 && i.has4() || !v4 && i.has6() }
				p := place{a.hostLink(x.Index), v4}
				watched[p] = watched[p] || x.Index == y.Index && has(x) && has(y) && count(p.link, v4) > 0 && stage == Joined
			}
		}
	}
	return func(c change) {
		if c.rank == rankMakeRoom {
			return
		}
		for p, is := range watched {
			if is && c.kind == kindAddress && c.link == p.link && c.rank > rankMakeRoom && count(p.link, p.v4) == 0 && (p.v4 || c.rank > rankInsideAddress) {
				explain(t, seed, a, b, "after %s no address is left", c)
			}
		}
	}
}

func TestWhatIsCutOffAnywhereEndsWhereTheNextGoes(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		a, b, stage := randomConfig(r), randomConfig(r), randomStage(r)
		start := from(t, r, seed, a)
		_, changes := start.plan(stage, b, &a)
		for cut := range len(changes) + 1 {
			for name, next := range map[string]struct {
				stage  Stage
				c      Config
				before *Config
			}{
				"forward": {stage, b, &a},
				"back":    {Joined, a, &b},
				"down":    {Down, b, &a},
			} {
				f := &fake{have: maps.Clone(start.have)}
				for _, c := range changes[:cut] {
					must(t, f.perform(c))
				}
				want, rest := f.plan(next.stage, next.c, next.before)
				for _, c := range rest {
					if err := f.perform(c); err != nil {
						explain(t, seed, a, b, "cut at %d, %s: %v", cut, name, err)
					}
				}
				if err := f.leftovers(want); err != nil {
					explain(t, seed, a, b, "cut at %d of %v, %s: %v", cut, changes, name, err)
				}
			}
		}
	}
}

// A running container's configuration is known from its file alone after kill -9:
// the one before, or the new one.
func TestWhatIsCutOffWhileRunningNeedsNoMemory(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		a, b := randomConfig(r), randomConfig(r)
		start := newFake()
		must(t, start.apply(Joined, a, nil))
		_, changes := start.plan(Joined, b, nil)
		for cut := range len(changes) + 1 {
			for _, next := range []Config{a, b} {
				f := &fake{have: maps.Clone(start.have)}
				for _, c := range changes[:cut] {
					must(t, f.perform(c))
				}
				must(t, f.apply(Joined, next, nil))
				want, rest := f.plan(Joined, next, nil)
				if err := f.leftovers(want); err != nil || len(rest) > 0 {
					explain(t, seed, a, b, "cut at %d of %v: %v %v", cut, changes, err, rest)
				}
			}
		}
	}
}

func TestWhatFailsAnywhereIsAsBefore(t *testing.T) {
	boom := errors.New("boom")
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 4))
		a, b := randomConfig(r), randomConfig(r)
		stage := pick(r, Joined, Held)
		start := from(t, r, seed, a)
		_, changes := start.plan(stage, b, &a)
		if len(changes) > 0 && changes[0].rank == rankReplaced {
			continue // what leads elsewhere is not brought back
		}
		for n, c := range changes {
			if c.rank == rankNoPair && n > 0 && changes[n-1].rank == rankNoPair {
				break // the removal of a link can't be undone
			}
			f := &fake{have: maps.Clone(start.have)}
			at := n
			ctx := context.WithValue(context.Background(), faultKey{}, func(string) error {
				if at--; at == -1 {
					return boom
				}
				return nil
			})
			if err := runOrUndo(ctx, actions(f, changes, policyActions{})); !errors.Is(err, boom) || strings.Contains(err.Error(), "undo") {
				explain(t, seed, a, b, "change %d of %v: got %v", n, changes, err)
			}
			hostWide := func(i item, _ value) bool { return i.kind == kindSetting && i.link == "" && !i.inside }
			was, is := maps.Clone(start.have), maps.Clone(f.have)
			maps.DeleteFunc(was, hostWide)
			maps.DeleteFunc(is, hostWide)
			lasting := func(i item, _ value) bool {
				return i.kind == kindBridge || i.link == OwnBridge || i.kind == kindSetting && is[i] != was[i] && was[i] == value{}
			}
			maps.DeleteFunc(was, lasting)
			maps.DeleteFunc(is, lasting)
			if !maps.Equal(was, is) {
				explain(t, seed, a, b, "change %d of %v:\n%s", n, changes, cmp.Diff(fmt.Sprintf("%+v", was), fmt.Sprintf("%+v", is)))
			}
		}
	}
}
