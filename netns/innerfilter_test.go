package netns

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Rulesets as an administrator might write them, for nft(8).
var filterScripts = map[string]string{
	"a firewall": `
		table inet filter {
			comment "of the administrator"
			set allowed { type ipv4_addr; flags interval; elements = { 10.0.0.0/24, 10.0.1.0/24, 10.0.5.1, 192.168.0.0-192.168.0.77, 240.0.0.0/4 } }
			set ports { type inet_service; flags interval; elements = { 0-79, 8080, 65000-65535 } }
			chain input {
				type filter hook input priority filter; policy drop;
				ct state established,related accept
				iifname "lo" accept
				ip saddr @allowed tcp dport { 22, 80, 8000-8100 } counter packets 7 bytes 777 accept comment "web"
				tcp dport @ports limit rate 5/second burst 9 packets log prefix "port: " reject with tcp reset
				jump more
			}
			chain more { udp dport 53 return; }
			chain forward { type filter hook forward priority 10; policy accept; }
		}`,
	"maps and objects": `
		table ip maps {
			counter seen { packets 5 bytes 50 }
			quota much { over 10 mbytes used 3 mbytes }
			limit some { rate 10/minute }
			map verdicts { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop, 10.0.0.2 : goto other, 10.0.0.3 : accept } }
			map ranges { type ipv4_addr : inet_service; flags interval; elements = { 10.0.0.0/24 : 80, 10.0.1.0/24 : 81 } }
			map counters { type inet_service : counter; elements = { 80 : "seen" } }
			set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/24 . 80-90, 10.1.0.0/16 . 443 } }
			set counted { type ipv4_addr; counter; elements = { 10.0.0.9 counter packets 3 bytes 30 } }
			set recent { type ipv4_addr; size 128; flags dynamic,timeout; timeout 1h; elements = { 10.9.9.9 timeout 2h expires 90m } }
			chain other { counter name "seen"; quota name "much" drop; }
			chain input {
				type filter hook input priority 0;
				ip saddr vmap @verdicts
				counter name tcp dport map @counters
				ip saddr . tcp dport @pairs accept
				limit name "some" accept
				add @recent { ip saddr timeout 30m }
				tcp dport vmap { 1-10 : drop, 11 : jump other }
				meta mark set ip saddr map { 10.0.0.1 : 0x1, 10.0.0.2 : 0x2 }
			}
		}`,
	"NAT": `
		table ip nat {
			chain prerouting { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to 10.0.0.2:80; udp dport 53 redirect to :5353; }
			chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.50.0.0/24 oifname "eth0" masquerade random; ip saddr 10.51.0.0/24 snat to 10.9.0.5; }
		}
		table ip6 nat {
			chain prerouting { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to [fd50::2]:80; }
		}`,
	"an anonymous chain": `
		table inet nested {
			chain input { type filter hook input priority 0; tcp dport 1 jump { ip saddr 10.0.0.1 drop; ip saddr { 10.0.0.2, 10.0.0.3 } accept; } ; udp dport 2 goto { counter drop; } ; }
		}`,
	"other families": `
		table arp a { chain input { type filter hook input priority 0; arp operation request counter accept; }; }
		table bridge b { chain forward { type filter hook forward priority 0; ether saddr 02:00:00:00:00:01 drop; }; }
		table netdev n { chain ingress { type filter hook ingress device "eth0" priority 0; ip saddr 10.0.0.66 drop; }; }
		table inet dormant { flags dormant
			chain input { type filter hook input priority 0; drop; }; }`,
	"many elements": manyElements(2000),
}

func manyElements(n int) string {
	var b strings.Builder
	b.WriteString("table inet many { set blocked { type ipv4_addr . inet_service; elements = { ")
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("10.")
		for _, part := range []int{i >> 8 & 255, i & 255} {
			b.WriteString(strconv.Itoa(part) + ".")
		}
		b.WriteString("1 . " + strconv.Itoa(1+i%1000))
	}
	b.WriteString(" }; }; chain input { type filter hook input priority 0; ip saddr . tcp dport @blocked drop; }; }")
	return b.String()
}

// expires is the time that an element has left.
var expires = regexp.MustCompile(`expires [0-9a-z]+`)

func steady(ruleset string) string { return expires.ReplaceAllString(ruleset, "expires") }

func TestPacketFilterComesBack(t *testing.T) {
	requireHost(t)
	testutil.Require(t, testutil.Tool("nft"))
	for name, rules := range filterScripts {
		t.Run(name, func(t *testing.T) {
			var listed string
			list := func(s space) { listed = s.output(t, "", "nft", "list", "ruleset") }
			second := comesBack(t, func(first space) {
				first.output(t, rules, "nft", "-f", "-")
				list(first)
			})
			before := listed
			list(second)
			if diff := cmp.Diff(steady(before), steady(listed)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExtensionsOfIptablesComeBack(t *testing.T) {
	requireHost(t)
	comesBack(t, func(first space) { addExtensions(t, first) })
}

func TestLockTablesAreNotRecorded(t *testing.T) {
	requireHost(t)
	c := innerConfig()
	ct := innerSpace(t, c)
	conn, err := openFilter(int(ct.ns.Fd()))
	must(t, err)
	defer func() { must(t, conn.CloseLasting()) }()
	drop := nftables.ChainPolicyDrop
	for _, filterTable := range []*nftables.Table{
		{Name: "CRIU-12", Family: nftables.TableFamilyINet}, {Name: "CRIU-12", Family: nftables.TableFamilyIPv4},
	} {
		conn.AddChain(&nftables.Chain{
			Name: "out", Table: conn.AddTable(filterTable), Type: nftables.ChainTypeFilter, Policy: &drop,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter,
		})
	}
	must(t, conn.Flush())
	in, err := Capture(ctx, ct.pid, c)
	must(t, err)
	var got []InnerFilter
	for _, f := range in.Filter {
		got = append(got, InnerFilter{Kind: f.Kind, Family: f.Family})
	}
	// The lock is only in inet; a table of another family is the administrator's.
	want := []InnerFilter{
		{Kind: unix.NFT_MSG_NEWTABLE, Family: unix.NFPROTO_IPV4}, {Kind: unix.NFT_MSG_NEWCHAIN, Family: unix.NFPROTO_IPV4},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// addExtensions makes rules as iptables does on nftables: with a match and a
// target that the kernel takes only in a rule of the right protocol.
func addExtensions(t testing.TB, s space) {
	t.Helper()
	conn, err := openFilter(int(s.ns.Fd()))
	must(t, err)
	defer func() { must(t, conn.CloseLasting()) }()
	filterTable := conn.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Name: "INPUT", Table: filterTable, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
	})
	ports := xt.Tcp{DstPorts: [2]uint16{80, 90}, SrcPorts: [2]uint16{0, 65535}}
	conn.AddRule(&nftables.Rule{Table: filterTable, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Match{Name: "tcp", Info: &ports},
		&expr.Counter{Packets: 3, Bytes: 33},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	must(t, conn.Flush())
}
