package integration_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// roundsEnv says how often what is repeated is repeated.
const roundsEnv = "CTCTL_TEST_ROUNDS"

func rounds(t *testing.T, otherwise int) int {
	t.Helper()
	text := os.Getenv(roundsEnv)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of rounds", roundsEnv, text)
	}
	return n
}

var openRedis = []string{"redis-server", "--bind", "*", "-::*", "--protected-mode", "no", "--save", ""}

// Second addresses, rates and routes come and go, while clients of the first
// address ask as fast as they are answered: no question fails, no connection ends.
func TestClientsOfTheFirstAddressNoticeNoChangeOfOthers(t *testing.T) {
	r := open(t)
	b := r.create(t, openRedis...)
	r.ctctl(t, "start", b.name)
	r.ctctl(t, "set", b.name, "--no-probe", "--ip-add", "fd97:2::1")
	streams := []*stream{
		startStream(t, net.JoinHostPort(b.addr, "6379")), startStream(t, net.JoinHostPort("fd97:2::1", "6379")),
	}
	began, n := time.Now(), rounds(t, 40)
	for i := range n {
		for _, flags := range []string{
			"--ip-add 10.97.2.2 --ip-add fd97:2::2 --rate-egress 500mbit --route 198.51.100.0/24",
			fmt.Sprintf("--rate-egress %dmbit --rate-ingress 900mbit", 600+i%100),
			"--ip-del 10.97.2.2 --ip-del fd97:2::2 --rate-egress none --rate-ingress none --route-del 198.51.100.0/24",
		} {
			r.quietly(t, append([]string{"set", b.name, "--no-probe"}, strings.Fields(flags)...)...)
			for _, s := range streams {
				s.goesOn(t, fmt.Sprintf("round %d: %s", i, flags))
			}
		}
	}
	took := time.Since(began)
	for _, s := range streams {
		s.end(t)
	}
	t.Logf("%d rounds in %v: %d and %d answers, none failed, on two connections", n, took.Round(time.Millisecond), streams[0].asked.Load(), streams[1].asked.Load())
}

// answers asks over a connection of its own, which an address that is taken away
// leaves without an answer.
func answers(addr string) error {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(addr, "6379"), clientPatience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(clientPatience)); err != nil {
		return err
	}
	// Not through line, which is more patient.
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	_, err = redis{&line{conn: conn, r: bufio.NewReader(conn)}}.reply()
	return err
}

// Whoever finds that the old address does not answer any more gets an answer at
// the new one, at every moment.
func TestAnAddressIsExchangedInOneStep(t *testing.T) {
	r := open(t)
	b := r.create(t, openRedis...)
	r.ctctl(t, "start", b.name)
	awaitThat(t, "the server answers", func() bool { return answers(b.addr) == nil })
	was, is := b.addr, "10.97.3.1"
	for range rounds(t, 10) {
		changed := make(chan result, 1)
		go func() { changed <- r.try(t, "set", b.name, "--no-probe", "--ip-set", is) }()
		for old := true; old; {
			err := answers(was)
			if old = err == nil; old {
				continue
			}
			nerr := answers(is)
			if old = nerr != nil && answers(was) == nil; old { // it was only slow
				continue
			}
			if nerr != nil {
				t.Errorf("%s does not answer any more (%v), and %s not yet (%v)", was, err, is, nerr)
			}
		}
		if res := <-changed; res.err != nil {
			t.Fatal(res)
		}
		was, is = is, was
	}
}

// The first container's administrator has given it an address by hand, which only
// the network can tell.
func TestAnAddressThatAnotherMachineAnswersForIsRefused(t *testing.T) {
	r := open(t)
	first, second := r.create(t), r.create(t, openRedis...) // the first boots an init, whose root may set addresses
	for _, b := range []*box{first, second} {
		r.ctctl(t, "set", b.name, "--nic-add", "name=lan0,bridge=ctctl0")
		r.ctctl(t, "start", b.name)
	}
	r.ctctl(t, "set", first.name, "--nic", "lan0", "--no-filter")
	first.exec(t, "ip", "address", "add", "10.96.7.50/24", "dev", "lan0")
	mac := strings.TrimSpace(first.exec(t, "cat", "/sys/class/net/lan0/address"))
	res := r.try(t, "set", second.name, "--nic", "lan0", "--ip-add", "10.96.7.50/24")
	if res.code != codeResource || !strings.Contains(res.stderr, mac) {
		t.Fatalf("exit code %d, want %d and the address %s:\n%s", res.code, codeResource, mac, res.stderr)
	}
	if got := second.exec(t, "ip", "-br", "address", "show", "dev", "lan0"); strings.Contains(got, "10.96.7.50") {
		t.Errorf("it was added all the same: %s", got)
	}
	first.exec(t, "ip", "address", "del", "10.96.7.50/24", "dev", "lan0")
	r.ctctl(t, "set", second.name, "--nic", "lan0", "--ip-add", "10.96.7.50/24")
}

// codeResource is ctctl's exit code for what is not to be had.
const codeResource = 9

// The network namespace is in no image.
func TestWhatWasConfiguredInsideTheNetworkComesBack(t *testing.T) {
	r := open(t)
	b := r.create(t)
	r.ctctl(t, "start", b.name)
	for _, command := range []string{
		"ip address add 10.95.1.1/24 dev eth0 label eth0:mine",
		"ip -6 address add fd95::1/64 dev eth0 nodad",
		"ip route add 198.51.100.0/24 via 10.95.1.2",
		"ip route add 203.0.113.0/24 dev eth0 table 77",
		"ip rule add from 10.95.1.1 lookup 77 priority 1000",
		"ip link set lo mtu 32000",
		"sysctl -w net.ipv4.ip_default_ttl=77 net.ipv6.conf.eth0.accept_ra=0",
	} {
		b.exec(t, strings.Fields(command)...)
	}
	look := func() string {
		t.Helper()
		return b.exec(t, "sh", "-c", `ip -o address; ip route show table all; ip -6 route show table all; ip rule; ip -o link show lo;
			sysctl net.mptcp.enabled net.ipv4.ip_default_ttl net.ipv6.conf.eth0.accept_ra`)
	}
	want := look()
	if !strings.Contains(want, "eth0:mine") || !strings.Contains(want, "lookup 77") || !strings.Contains(want, "ttl = 77") {
		t.Fatalf("not configured: %s", want)
	}
	r.ctctl(t, "snapshot", "create", b.name, "configured")
	b.exec(t, "ip", "address", "del", "10.95.1.1/24", "dev", "eth0")
	b.exec(t, "ip", "rule", "del", "priority", "1000")
	b.exec(t, "sysctl", "-w", "net.ipv4.ip_default_ttl=64")
	for _, steps := range [][]string{{"rollback", b.name, "configured"}, {"suspend", b.name}, {"resume", b.name}} {
		r.ctctl(t, steps...)
		if steps[0] == "suspend" {
			continue
		}
		if diff := cmp.Diff(ordered(want), ordered(look())); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", steps[0], diff)
		}
	}
}

// ordered are the lines of a text, whose order and interface numbers say nothing.
func ordered(text string) []string {
	lines := strings.Split(strings.TrimSpace(regexp.MustCompile(`(?m)^\d+: (lo|eth)|@if\d+|link-netnsid \d+`).ReplaceAllString(text, "$1")), "\n")
	slices.Sort(lines)
	return lines
}

// Of two state roots on one network, each has orphans in the eyes of the other.
func TestOrphansInTheNetworkAreRemoved(t *testing.T) {
	orphan := open(t).create(t, openRedis...)
	orphan.ctctl(t, "start", orphan.name)
	known := newSite(t)
	l := known.addLedger(t, mainName, 1)
	t.Cleanup(l.pause)
	l.pause()
	l.settle(t)
	r := &rig{binary: orphan.binary, state: known.state, run: known.run}
	link := "ct" + orphan.uid[:12]
	out := r.ctctl(t, "net", "repair", "--orphans")
	if !strings.Contains(out, "link "+link) || strings.Contains(out, known.info(t, mainName).Config.LinkName()) {
		t.Errorf("removed: %s", out)
	}
	if hasLink(link) {
		t.Errorf("%s is there still", link)
	}
	if again := r.ctctl(t, "net", "repair", "--orphans"); strings.Contains(again, "removed") {
		t.Errorf("removed again: %s", again)
	}
	l.settle(t) // it serves
}
