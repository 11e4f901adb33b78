package netns

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// throughput sends for a while from one space to another, and returns bits per
// second of payload as the receiver sees them, from before the first packet on:
// however the machine is busy, what a limit lets through is no more than that.
func throughput(t testing.TB, from, to space, address string, during time.Duration) float64 {
	t.Helper()
	l := to.listen(t, net.JoinHostPort(address, "0"))
	start := time.Now()
	client, server := connect(t, from, l)
	defer l.Close()
	defer server.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		buf := make([]byte, 64<<10)
		for {
			if _, err := client.Write(buf); err != nil {
				return // the end of the measurement
			}
		}
	}()
	must(t, server.SetReadDeadline(start.Add(during)))
	n, err := io.Copy(io.Discard, server)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("got %v", err)
	}
	took := time.Since(start)
	must(t, client.Close())
	<-sent
	return float64(n) * 8 / took.Seconds()
}

func TestRatesHoldInBothDirections(t *testing.T) {
	h := requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	link := plugged(t, h, ct, c)
	must(t, applyPolicy(ctx, c))
	for _, bits := range []int64{2_000_000, 50_000_000} {
		c.Interfaces[0].Rate = Rate{EgressBits: bits, IngressBits: bits / 2}
		must(t, applyRate(h, link, c.Interfaces[0].Rate))
		must(t, applyPolicy(ctx, c))
		for name, test := range map[string]struct {
			from, to space
			address  string
			want     int64
		}{
			"sends":    {ct, host, "169.254.1.1", bits},
			"receives": {host, ct, "10.9.0.5", bits / 2},
		} {
			got := throughput(t, test.from, test.to, test.address, 2*time.Second)
			ratio := got / float64(test.want)
			t.Logf("%d bit/s, container %s %.0f bit/s: %.1f %%", test.want, name, got, ratio*100)
			// Payload only: 1448 of 1514 bytes, and what the bucket held. A busy
			// machine sends less, as its timers are late.
			if ratio > 1.15 || ratio < 0.2 {
				t.Errorf("%d bit/s, container %s %.0f bit/s", test.want, name, got)
			}
		}
	}
	report, err := RateOf(ctx, link.Attrs().Name)
	must(t, err)
	if report.Egress == nil || report.Ingress == nil || report.Egress.Packets == 0 || report.Ingress.Bytes == 0 {
		t.Errorf("got %+v", report)
	}
}

func TestRateChangesWithoutDroppingAConnection(t *testing.T) {
	h := requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	link := plugged(t, h, ct, c)
	l := ct.listen(t, "10.9.0.5:0")
	client, server := connect(t, host, l)
	defer client.Close()
	defer server.Close()
	for _, r := range []Rate{{1e6, 0}, {1e6, 1e6}, {5e6, 2e6}, {0, 2e6}, {1e6, 0}, {}, {3e6, 3e6}, {}} {
		must(t, applyRate(h, link, r))
		echo(t, client, server)
		report, err := RateOf(ctx, link.Attrs().Name)
		must(t, err)
		var got Rate
		if report.Egress != nil {
			got.EgressBits = report.Egress.Bits
		}
		if report.Ingress != nil {
			got.IngressBits = report.Ingress.Bits
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Error(diff)
		}
	}
}

// Packets that come back from the device have passed the filter before.
func TestARateDoesNotOpenTheFilter(t *testing.T) {
	h := requireHost(t)
	out, ct := newSpace(t, false), newSpace(t, true)
	bridgeTo(t, h, out)
	c := config(1, "10.9.0.5/24")
	c.Interfaces[0].Bridge, c.Interfaces[0].Rate.EgressBits = "br0", 1e8
	link := plugged(t, h, ct, c)
	must(t, applyPolicy(ctx, c))
	must(t, applyRate(h, link, c.Interfaces[0].Rate))
	inside, listener := ct.capture(t, "eth0"), out.capture(t, "out0")
	mac, _ := MACFor(c.UID, 0)
	forged := frames(mac).forged()
	for _, f := range forged {
		inside.send(t, f)
	}
	inside.send(t, rawEther(everyone, mac, 0x800, rawIP4("10.9.0.5", "10.9.0.255", 17, rawUDP("that is all"))))
	listener.until(t, []byte("that is all"))
	for name, f := range forged {
		if listener.saw(shown(f)) {
			t.Errorf("forged %s passed", name)
		}
	}
	report, err := RateOf(ctx, link.Attrs().Name)
	must(t, err)
	if report.Egress == nil || report.Egress.Packets == 0 {
		t.Errorf("nothing went through the limit: %+v", report)
	}
}

func TestApplyingTheSameRateTwiceDoesNothing(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	link := plugged(t, h, ct, c)
	r := Rate{EgressBits: 12_345_678, IngressBits: MaxRateBits}
	must(t, applyRate(h, link, r))
	before, device := generation(t), shaperIndex(t, h, link)
	must(t, applyRate(h, link, r))
	if after := generation(t); after != before {
		t.Errorf("packet filter generation %d, then %d", before, after)
	}
	if after := shaperIndex(t, h, link); after != device {
		t.Errorf("device %d, then %d", device, after)
	}
}

func shaperIndex(t testing.TB, h *netlink.Handle, link netlink.Link) int {
	t.Helper()
	device, err := h.LinkByName(shaperName(link.Attrs().Name))
	must(t, err)
	return device.Attrs().Index
}

// generation is the number of transactions that the packet filter has seen.
func generation(t testing.TB) uint32 {
	t.Helper()
	conn, err := openPolicy()
	must(t, err)
	defer func() { must(t, conn.close()) }()
	id, err := conn.generation()
	must(t, err)
	return id
}

func TestRatesOutOfBoundsAreRefused(t *testing.T) {
	for _, r := range []Rate{{EgressBits: -1}, {IngressBits: MinRateBits - 1}, {EgressBits: MaxRateBits + 1}} {
		err := applyRate(nil, nil, r)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "between 8000 and") {
			t.Errorf("%+v: got %v", r, err)
		}
	}
}

func TestRateReportIsStableJSON(t *testing.T) {
	b, err := json.Marshal(RateReport{Link: "ct0", Egress: &ShaperReport{Bits: 8000}})
	must(t, err)
	want := `{"link":"ct0","egress":{"bits":8000,"bytes":0,"packets":0,"dropped":0,"waitingBytes":0}}`
	if string(b) != want {
		t.Errorf("got %s", b)
	}
}

func TestTheDeviceOfARateGoesWithItsInterface(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces = append(c.Interfaces, Interface{Name: "eth1", Index: 1, Addresses: prefixes("10.9.0.6/32"), Rate: Rate{EgressBits: 1e6}})
	plug(t, ct, c)
	device := shaperName(c.hostLink(1))
	if _, err := h.LinkByName(device); err != nil {
		t.Fatal(err)
	}
	c.Interfaces = c.Interfaces[:1]
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	if _, err := h.LinkByName(device); err == nil {
		t.Errorf("%s is still there", device)
	}
	if left := strings.Join(ruleset(t), "\n"); strings.Contains(left, c.hostLink(1)) {
		t.Errorf("left:\n%s", left)
	}
	// Of a link that has gone by itself, with a container that stays.
	c.Interfaces[0].Rate.EgressBits = 1e6
	must(t, Apply(ctx, Target{PID: ct.pid}, c))
	must(t, Leave(ctx, c, true))
	reaped, err := reapPolicy(ctx, func(string) bool { return true })
	if _, found := h.LinkByName(shaperName(c.hostLink(0))); err != nil || len(reaped) > 0 || found == nil {
		t.Errorf("reaped %v, %v, found: %v", reaped, err, found)
	}
}

func TestMissingKernelPartIsNamed(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{{unix.EOPNOTSUPP, true}, {unix.ENOENT, true}, {unix.EPERM, false}, {nil, false}} {
		err := unsupported(test.err, "sch_tbf", "NET_SCH_TBF", "rate limits")
		var typed *UnsupportedError
		if got := errors.As(err, &typed) && errors.Is(err, ErrUnsupported) && errors.Is(err, test.err); got != test.want {
			t.Errorf("%v: got %v", test.err, err)
		}
		if test.want && !strings.Contains(err.Error(), "no sch_tbf (CONFIG_NET_SCH_TBF), which rate limits need") {
			t.Errorf("got %v", err)
		}
	}
}

func TestARateThatIsNotTheWantedOneIsADifferenceUntilItIsApplied(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].Rate = Rate{EgressBits: 12_345_678, IngressBits: 2e6} // the first is no whole number of bytes
	link := plugged(t, h, ct, c)
	different := func() (objects []string) {
		t.Helper()
		report, err := RateOf(ctx, link.Attrs().Name)
		must(t, err)
		for _, d := range report.Differences(c.Interfaces[0].Rate) {
			objects = append(objects, strings.TrimSuffix(d.Object, " of "+link.Attrs().Name)+" is "+d.Actual)
		}
		return objects
	}
	device := func() netlink.Link {
		t.Helper()
		l, err := h.LinkByName(shaperName(link.Attrs().Name))
		must(t, err)
		return l
	}
	chain := func() error {
		conn, err := openPolicy()
		if err != nil {
			return err
		}
		conn.DelChain(shapeChain(link.Attrs().Name))
		return errors.Join(conn.Flush(), conn.close())
	}
	if got := different(); got != nil {
		t.Errorf("as it was applied: %v", got)
	}
	for name, test := range map[string]struct {
		spoil func() error
		want  []string
	}{
		"no limit of what it receives":   {func() error { return h.QdiscDel(shaper(link, 1500, 8000)) }, []string{"ingress is "}},
		"no device":                      {func() error { return h.LinkDel(device()) }, []string{"egress is "}},
		"nothing leads to the device":    {chain, []string{"egress is "}},
		"another rate in each direction": {func() error { return applyRate(h, link, Rate{1e6, 1e6}) }, []string{"egress is 1000000 bit/s", "ingress is 1000000 bit/s"}},
	} {
		must(t, test.spoil())
		if diff := cmp.Diff(test.want, different()); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		must(t, Apply(ctx, Target{PID: ct.pid}, c))
		if got := different(); got != nil {
			t.Errorf("%s, then applied: %v", name, got)
		}
	}
	c.Interfaces[0].Rate = Rate{}
	if got := different(); len(got) != 2 {
		t.Errorf("of limits that are not wanted any more: %v", got)
	}
}

// A limit drops packets that do not fit into its bucket.
func TestALimitFitsTheLargestPacketsWhateverTheirSizeWas(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].Rate = Rate{EgressBits: 1e6, IngressBits: 1e6}
	link := plugged(t, h, ct, c)
	device, err := h.LinkByName(shaperName(link.Attrs().Name))
	must(t, err)
	for _, mtu := range []int{9000, 1500, 3000} {
		c.Interfaces[0].MTU = mtu
		must(t, Apply(ctx, Target{PID: ct.pid}, c))
		for _, l := range []netlink.Link{link, device} {
			have, err := shaperOf(h, l)
			must(t, err)
			if want := shaper(l, mtu, 1e6); have == nil || have.Buffer != want.Buffer || have.Limit != want.Limit {
				t.Errorf("MTU %d: %s is limited by %#v, want %#v", mtu, l.Attrs().Name, have, want)
			}
		}
	}
}

// Whoever made the device was killed before it was ready.
func TestADeviceThatWasLeftHalfMadeIsCompleted(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	link := plugged(t, h, ct, c)
	name := shaperName(link.Attrs().Name)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}))
	must(t, applyRate(h, link, Rate{EgressBits: 1e6}))
	if got, err := os.ReadFile(sysctlPath("ipv6", "conf", name, "disable_ipv6")); err != nil || strings.TrimSpace(string(got)) != "1" {
		t.Errorf("disable_ipv6 is %q, %v", got, err)
	}
	if report, err := RateOf(ctx, link.Attrs().Name); err != nil || report.Egress == nil {
		t.Errorf("%+v, %v", report, err)
	}
}
