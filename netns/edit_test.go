package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stream sends requests over one connection as fast as they are answered, until
// it is stopped, and returns how many there were.
func stream(t *testing.T, from, to space, address string) (stop func() int) {
	t.Helper()
	l := to.listen(t, net.JoinHostPort(address, "0"))
	client, server := connect(t, from, l)
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Not the connection itself: to splice, io.Copy would keep pipes.
		_, _ = io.Copy(struct{ io.Writer }{server}, struct{ io.Reader }{server})
		_ = server.Close()
	}()
	quit, result := make(chan struct{}), make(chan error, 1)
	rounds := 0
	go func() {
		request, answer := bytes.Repeat([]byte("x"), 512), make([]byte, 512)
		for ; ; rounds++ {
			select {
			case <-quit:
				result <- nil
				return
			default:
			}
			err := client.SetDeadline(time.Now().Add(10 * time.Second))
			if err == nil {
				_, err = client.Write(request)
			}
			if err == nil {
				_, err = io.ReadFull(client, answer)
			}
			if err != nil {
				result <- err
				return
			}
		}
	}()
	return func() int {
		t.Helper()
		close(quit)
		must(t, <-result)
		must(t, client.Close())
		<-served
		return rounds
	}
}

func TestEditsDoNotDisturbAConnection(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h)
	routeBack(t, out)
	forward(t)
	bridgeNamed(t, h, "br0", 1500, "10.8.0.1/24")
	all := samples()
	for name, test := range map[string]struct {
		c    Config
		from space
		at   string
	}{
		"routed":  {all["routed"], out, "10.9.0.5"},
		"bridged": {all["bridged"], hostSpace(t), "10.8.0.6"},
	} {
		t.Run(name, func(t *testing.T) {
			ct := newSpace(t, true)
			c := test.c
			tidyUp(t, c)
			must(t, Apply(ctx, Target{PID: ct.pid}, c))
			stop := stream(t, test.from, ct, test.at)
			for n := range 60 {
				next := c
				next.Interfaces = slices.Clone(c.Interfaces)
				i := &next.Interfaces[0]
				// The first address of the bridged one, to whose network the others
				// belong as secondary ones, goes and comes.
				keep := slices.IndexFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr().String() == test.at })
				i.Addresses = append(prefixes(fmt.Sprintf("10.8.0.%d/24", 10+n), fmt.Sprintf("fd08::%x/64", 10+n)), i.Addresses[keep])
				i.Routes = []Route{{To: netip.MustParsePrefix("10.7.0.0/16"), Metric: n}}
				must(t, Apply(ctx, Target{PID: ct.pid, Before: &c}, next))
				// What one change has taken along the next would bring back.
				if more := steps(t, func(ctx context.Context) error { return Apply(ctx, Target{PID: ct.pid}, next) }); len(more) > 0 {
					t.Fatalf("round %d has not done %q", n, more)
				}
				if n%2 == 0 {
					must(t, Apply(ctx, Target{PID: ct.pid, Before: &next}, c))
				} else {
					c = next
				}
			}
			if rounds := stop(); rounds < 10 {
				t.Errorf("only %d requests", rounds)
			}
		})
	}
}

func TestAnAddressIsReplacedWithoutAGap(t *testing.T) {
	h := requireHost(t)
	_ = h
	client, ct := hostSpace(t), newSpace(t, true)
	a, b := config(1, "10.9.0.5/32"), config(1, "10.9.0.6/32")
	tidyUp(t, a)
	tidyUp(t, b)
	must(t, Apply(ctx, Target{PID: ct.pid}, a))
	l := ct.listen(t, ":0")
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	answers := func(address string) bool {
		c, err := client.dial(net.JoinHostPort(address, port), 5*time.Second)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	for n := range 10 {
		from, to, old := a, b, "10.9.0.5"
		if n%2 == 1 {
			from, to, old = b, a, "10.9.0.6"
		}
		if !answers(old) {
			t.Errorf("%s does not answer before", old)
		}
		var order []string
		watched := context.WithValue(ctx, faultKey{}, func(what string) error {
			order = append(order, what)
			return nil
		})
		must(t, Apply(watched, Target{PID: ct.pid, Before: &from}, to))
		if !answers(to.Interfaces[0].Addresses[0].Addr().String()) {
			t.Error("the new address does not answer")
		}
		added := slices.IndexFunc(order, func(s string) bool { return strings.HasPrefix(s, "add route") })
		removed := slices.IndexFunc(order, func(s string) bool { return strings.HasPrefix(s, "remove") })
		filtered := slices.Index(order, applyFilter)
		again := slices.Index(order[filtered+1:], applyFilter) + filtered + 1
		if filtered < 0 || added < filtered || removed < added || again < removed {
			t.Errorf("order: %q", order)
		}
	}
	must(t, l.Close())
	<-done
}

func TestWhatTheContainersAdminMadeStays(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	tidyUp(t, c)
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	_, dst, err := net.ParseCIDR("10.66.0.0/16")
	must(t, err)
	ct.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(
			addAddress(h, eth, netip.MustParsePrefix("10.77.0.1/24")),
			addAddress(h, eth, netip.MustParsePrefix("fd77::1/64")),
			h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Dst: dst, Protocol: unix.RTPROT_STATIC}),
		)
	})
	next := config(1, "10.9.0.6/32", "fd09::6/128")
	must(t, Apply(ctx, Target{PID: ct.pid, Before: &c}, next))
	var got []string
	ct.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := h.AddrList(eth, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if !a.IP.IsLinkLocalUnicast() {
				got = append(got, a.IPNet.String())
			}
		}
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: unix.RTPROT_STATIC}, netlink.RT_FILTER_PROTOCOL)
		for _, r := range routes {
			got = append(got, "route "+r.Dst.String())
		}
		return err
	})
	sort.Strings(got)
	want := []string{"10.77.0.1/24", "10.9.0.6/32", "fd09::6/128", "fd77::1/64", "route 10.66.0.0/16"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
