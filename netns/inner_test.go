package netns

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// innerConfig is a container with one routed interface of both IP versions.
func innerConfig() Config {
	return Config{UID: "00000000000000c1", Interfaces: []Interface{{
		Name: "eth0", Addresses: prefixes("10.9.0.5/32", "fd09::5/128"),
	}}}
}

// innerSpace is a container's namespace with the host's part in place. Its
// links go with it.
func innerSpace(t testing.TB, c Config) space {
	t.Helper()
	ct := newSpace(t, true)
	plug(t, ct, c)
	return ct
}

// script runs shell commands in the space.
func (s space) script(t testing.TB, text string) {
	t.Helper()
	s.output(t, "", "sh", "-e", "-c", text)
}

// output runs a program in the space.
func (s space) output(t testing.TB, stdin string, args ...string) (out string) {
	t.Helper()
	must(t, enter(s.ns, func() error {
		limit, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		cmd := exec.CommandContext(limit, args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		b, err := cmd.CombinedOutput()
		out = string(b)
		if err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
		return nil
	}))
	return out
}

var addressesCompare = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// copied is the record after a way through JSON.
func copied(t testing.TB, in Inner) (out Inner) {
	t.Helper()
	b, err := json.Marshal(in)
	must(t, err)
	must(t, json.Unmarshal(b, &out))
	if diff := cmp.Diff(in, out, addressesCompare); diff != "" {
		t.Errorf("JSON changes the record:\n%s", diff)
	}
	if size := in.size(); size < len(b)-100 || size > 3*len(b)+1000 {
		t.Errorf("%d bytes of JSON are counted as %d", len(b), size)
	}
	return out
}

func TestWhereNothingWasConfiguredNothingIsRecorded(t *testing.T) {
	requireHost(t)
	c := innerConfig()
	ct := innerSpace(t, c)
	in, err := Capture(ctx, ct.pid, c)
	must(t, err)
	if diff := cmp.Diff(Inner{}, in); diff != "" {
		t.Error(diff)
	}
	if b, err := json.Marshal(in); err != nil || string(b) != "{}" {
		t.Errorf("got %s, %v", b, err)
	}
	must(t, in.Reinstate(ctx, ct.pid))
}

func TestOfABridgedInterfaceNothingIsRecordedEither(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0", "10.50.0.1/24")
	must(t, h.LinkSetMTU(bridge, 1450))
	c := innerConfig()
	c.Interfaces = append(c.Interfaces, Interface{
		Name: "lan0", Index: 11, Bridge: "tbr0", Addresses: prefixes("10.50.0.7/24", "fd50::7/64"),
		Gateways: []netip.Addr{netip.MustParseAddr("10.50.0.1")},
		Routes:   []Route{{To: netip.MustParsePrefix("10.51.0.0/16"), Via: netip.MustParseAddr("10.50.0.2")}},
	})
	ct := innerSpace(t, c)
	in, err := Capture(ctx, ct.pid, c)
	must(t, err)
	if diff := cmp.Diff(Inner{}, in, addressesCompare); diff != "" {
		t.Error(diff)
	}
}

// Without a user namespace the kernel shows more settings, and lets the host make
// rules for user ids.
func TestANamespaceOfTheHostsUsersComesBack(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("ip"), testutil.Tool("sysctl"))
	c := innerConfig()
	var in Inner
	for _, script := range []string{"", "ip rule add uidrange 0-99 lookup 9; sysctl -qw net.ipv4.neigh.eth0.gc_stale_time=77", ""} {
		ct := newSpace(t, false)
		plug(t, ct, c)
		ct.script(t, script)
		must(t, in.Reinstate(ctx, ct.pid))
		now, err := Capture(ctx, ct.pid, c)
		must(t, err)
		if script == "" {
			if diff := cmp.Diff(in, now, addressesCompare); diff != "" {
				t.Error(diff)
			}
		} else if len(now.Rules) != 1 || len(now.Missing) != 0 {
			t.Errorf("got %+v", now)
		}
		in = now
		must(t, Leave(ctx, c, false))
	}
	if diff := cmp.Diff(map[string]string{"ipv4/neigh/eth0/gc_stale_time": "77"}, in.Sysctls); diff != "" {
		t.Error(diff)
	}
}

func TestGroupIdsFollowTheUserNamespace(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("sysctl"))
	c := innerConfig()
	other := newSpace(t, false) // where ids are the host's
	ct := innerSpace(t, c)
	ct.script(t, "sysctl -qw net.ipv4.ping_group_range='1879048192 1879048292'")
	in, err := Capture(ctx, ct.pid, c)
	must(t, err)
	if got := in.Sysctls[groupRange]; got != "0\t100" {
		t.Errorf("recorded as %q", got)
	}
	must(t, in.Reinstate(ctx, other.pid))
	if got := other.sysctl(t, groupRange); got != "0\t100" {
		t.Errorf("got %q", got)
	}
}

func TestARecorderSeesWhatIsConfiguredLater(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("ip"), testutil.Tool("sysctl"))
	c := innerConfig()
	ct := innerSpace(t, c)
	r, err := NewRecorder(ctx, ct.pid, c)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	ct.script(t, `
		ip link add br0 type bridge
		sysctl -qw net.ipv4.conf.br0.rp_filter=2 net.ipv4.tcp_keepalive_time=77`)
	in, err := r.Capture(ctx)
	must(t, err)
	want := map[string]string{"ipv4/conf/br0/rp_filter": "2", "ipv4/tcp_keepalive_time": "77"}
	if diff := cmp.Diff(want, in.Sysctls); diff != "" {
		t.Error(diff)
	}
	ct.script(t, "ip link del br0; sysctl -qw net.ipv4.tcp_keepalive_time=7200")
	in, err = r.Capture(ctx)
	must(t, err)
	if diff := cmp.Diff(Inner{}, in, addressesCompare); diff != "" {
		t.Error(diff)
	}
}

// What an administrator might configure, each in its own namespace.
var innerScripts = map[string]string{
	"addresses": `
		ip addr add 10.77.0.1/24 brd + dev eth0 label eth0:1
		ip addr add 10.77.0.2/24 dev eth0
		ip addr add 10.78.0.1 peer 10.78.0.2 dev eth0
		ip addr add 127.0.0.53/8 dev lo
		ip addr add fd77::1/64 dev eth0 nodad
		ip addr add fd77::2/128 dev lo metric 300
		ip addr add fe80::77/64 dev eth0 nodad`,
	"an address that expires": `ip addr add 10.77.0.1/24 dev eth0 valid_lft 7200 preferred_lft 3600`,
	"routes": `
		ip route add 10.99.0.0/24 via 10.98.0.1 dev eth0 onlink metric 7 mtu 1300
		ip addr add 10.77.0.1/24 dev eth0
		ip route add 10.66.0.0/16 via 10.77.0.9 src 10.77.0.1
		ip route add 10.65.0.0/16 via 10.66.0.9 onlink dev eth0
		ip route add default via 10.77.0.8 metric 5
		ip route add 10.64.0.0/16 nexthop via 10.77.0.8 dev eth0 weight 2 nexthop via 10.77.0.7 dev eth0
		ip route add 10.90.0.0/16 dev eth0 scope link
		ip route add 10.80.0.0/16 via 10.90.0.1
		ip route add blackhole 10.63.0.0/16
		ip route add unreachable 10.62.0.0/16 table 100
		ip route add prohibit 10.61.0.0/16 table 70000
		ip route add local 10.60.0.0/16 dev lo
		ip route add fd66::/64 via fe80::1 dev eth0 metric 77
		ip route add fd65::/64 dev eth0 table 100
		ip route add blackhole fd64::/64
		ip route add fd63::/64 nexthop via fe80::8 dev eth0 nexthop via fe80::7 dev eth0`,
	"rules": `
		ip rule add from 10.77.0.0/24 lookup 100 priority 1000
		ip rule add fwmark 0x7/0xff lookup 101 priority 1001
		ip rule add iif eth0 not to 10.0.0.0/8 blackhole
		ip rule add oif wan0 lookup 102
		ip rule add ipproto tcp dport 80-90 lookup 103
		ip -6 rule add from fd77::/64 lookup 100 suppress_prefixlength 0`,
	"neighbours": `
		ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
		ip neigh add fd77::9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent router
		ip neigh add proxy 10.77.0.10 dev eth0
		ip neigh add proxy fd77::10 dev eth0`,
	"settings of links": `
		ip link set eth0 mtu 1400 txqueuelen 77
		ip link set eth0 alias uplink
		ip link set lo multicast on
		ip link set eth0 promisc on allmulticast on`,
	"a link that is down": `ip link set eth0 down`,
	"new links": `
		ip link add br0 address 02:00:00:00:01:00 type bridge stp_state 1 forward_delay 400 ageing_time 10000
		ip link add p0 address 02:00:00:00:01:01 mtu 1450 type veth peer name p1 address 02:00:00:00:01:02
		ip link set p0 master br0 up
		ip link set p0 type bridge_slave hairpin on cost 77
		ip link set p1 up
		ip link set br0 up txqueuelen 500
		ip addr add 10.50.0.1/24 dev br0
		ip addr add fd50::1/64 dev br0 nodad
		ip route add 10.51.0.0/16 via 10.50.0.2
		sysctl -qw net.ipv4.conf.br0.rp_filter=2 net.ipv6.conf.p1.accept_ra=0`,
	"a link on top of another": `
		ip link add link eth0 name mv0 address 02:00:00:00:02:01 type macvlan mode bridge
		ip link set mv0 up`,
	"sysctls": `
		sysctl -qw net.ipv4.tcp_keepalive_time=77 net.core.somaxconn=777 net.ipv4.ip_local_port_range='20000 30000'
		sysctl -qw net.ipv6.conf.eth0.hop_limit=7 net.unix.max_dgram_qlen=99 net.ipv4.tcp_congestion_control=reno
		sysctl -qw net.ipv4.ping_group_range='1879048192 1879048292'`,
	"forwarding, but for one link": `
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		sysctl -qw net.ipv4.conf.eth0.forwarding=0 net.ipv4.conf.all.accept_redirects=1 net.ipv4.conf.default.rp_filter=2`,
	"no IPv6": `sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=0`,
}

func TestWhatTheAdministratorConfiguredComesBack(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("ip"), testutil.Tool("sysctl"))
	for name, script := range innerScripts {
		t.Run(name, func(t *testing.T) {
			comesBack(t, func(first space) { first.script(t, script) })
		})
	}
}

// comesBack configures a container, has it end and come back, and returns what
// came back.
func comesBack(t *testing.T, configure func(space)) space {
	t.Helper()
	c := innerConfig()
	first := innerSpace(t, c)
	configure(first)
	in, err := Capture(ctx, first.pid, c)
	must(t, err)
	if in.Empty() {
		t.Fatal("nothing was recorded")
	}
	if len(in.Missing) > 0 {
		t.Fatalf("missing: %v", in.Missing)
	}
	must(t, Leave(ctx, c, false))

	// In the order of a restore: nothing passes yet when it comes back.
	second := newSpace(t, true)
	t.Cleanup(func() {
		must(t, Leave(ctx, c, false))
		must(t, Forget(ctx))
	})
	must(t, Attach(ctx, second.pid, c))
	for _, time := range []string{"first", "second"} { // repeating changes nothing
		must(t, copied(t, in).Reinstate(ctx, second.pid))
		must(t, Join(ctx, c))
		again, err := Capture(ctx, second.pid, c)
		must(t, err)
		if diff := cmp.Diff(lasting(in), lasting(again), addressesCompare); diff != "" {
			t.Errorf("after the %s time:\n%s", time, diff)
		}
	}
	return second
}

// lasting is the record without what changes by itself.
func lasting(in Inner) Inner {
	in.Addresses = append([]InnerAddress(nil), in.Addresses...)
	for i, a := range in.Addresses {
		if a.Valid != nil && *a.Valid > 6000 && a.Preferred != nil && *a.Preferred > 3000 {
			in.Addresses[i].Valid, in.Addresses[i].Preferred = nil, nil
		}
	}
	in.Filter = append([]InnerFilter(nil), in.Filter...)
	for i, f := range in.Filter {
		if f.Kind == unix.NFT_MSG_NEWSETELEM {
			in.Filter[i].Data = withoutExpiry(f.Data)
		}
	}
	return in
}

// withoutExpiry takes the time that is left out of elements.
func withoutExpiry(data []byte) (out []byte) {
	all, err := parseTLVs(data)
	if err != nil {
		return nil
	}
	elements, err := nested(all, nftaElements)
	if err != nil {
		return nil
	}
	out = keep(all, nftaTable, nftaElementSet)
	for _, e := range elements {
		parts, err := parseTLVs(e.data)
		if err != nil {
			return nil
		}
		out = appendTLV(out, e.kind, keep(parts, 1, 2, 3, 4, 6, 7, 9, 10, 11))
	}
	return out
}

func TestWhatCannotComeBackIsNamed(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("ip"), testutil.Tool("tc"))
	c := innerConfig()
	other := newSpace(t, true)
	ct := innerSpace(t, c)
	ct.script(t, `
		ip tuntap add tap0 mode tap
		ip link set eth0 name wan0
		ip link property add dev lo altname back
		tc qdisc add dev wan0 root handle 1: tbf rate 10mbit burst 10k latency 10ms
		ip xfrm policy add src 10.0.0.0/8 dst 10.9.0.5 dir in tmpl proto esp mode tunnel
		ip nexthop add id 7 blackhole`)
	// Only the namespace's own root may say this.
	nsenter := []string{"-t", strconv.Itoa(ct.pid), "-U", "-n", "-S", "0", "-G", "0", "ip", "rule", "add", "uidrange", "0-99", "priority", "77", "lookup", "9"}
	if out, err := exec.CommandContext(ctx, "nsenter", nsenter...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ct.script(t, "ip link add away type veth peer name back netns "+strconv.Itoa(other.pid))
	in, err := Capture(ctx, ct.pid, c)
	must(t, err)
	got := strings.Join(in.Missing, "\n")
	for _, want := range []string{
		"link tap0 of the kind tun", "interface eth0, which was renamed", "other names of link lo",
		"queueing discipline tbf of link wan0", "1 policies of IPsec", "1 next hop objects",
		"a policy rule for a range of user ids, of priority 77",
		"link away, the other end of which is in another namespace",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not named: %s in\n%s", want, got)
		}
	}
}

func BenchmarkRecordingAPlainContainer(b *testing.B) {
	requireHost(b)
	c := innerConfig()
	ct := innerSpace(b, c)
	start := time.Now()
	r, err := NewRecorder(ctx, ct.pid, c)
	must(b, err)
	prepared := time.Since(start)
	b.Cleanup(func() { must(b, r.Close()) })
	before := cpuTime(b)
	for b.Loop() {
		if _, err := r.Capture(ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpuTime(b)-before).Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(prepared.Microseconds())/1000, "prepare-ms")
}

func BenchmarkReinstatingNothing(b *testing.B) {
	for b.Loop() {
		if err := (Inner{}).Reinstate(ctx, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuTime is what the process has used, which other processes on a busy machine
// change less than the time by the clock.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
