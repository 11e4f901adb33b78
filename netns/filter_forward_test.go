package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	hostPort  = 8001
	guestPort = 8080
)

// reach connects to a published port, sends a line there and back, and returns
// the address that the container saw.
func reach(t *testing.T, from space, to *net.TCPListener, address string) (peer string) {
	t.Helper()
	client, err := from.dial(address, 10*time.Second)
	if err != nil {
		t.Errorf("%s: %v", address, err)
		return ""
	}
	defer client.Close()
	must(t, to.SetDeadline(time.Now().Add(10*time.Second)))
	server, err := to.Accept()
	must(t, err)
	defer server.Close()
	echo(t, client, server)
	return server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().String()
}

func refused(t *testing.T, from space, address string) {
	t.Helper()
	c, err := from.dial(address, 10*time.Second)
	if err == nil {
		_ = c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%s: want a refusal, got %v", address, err)
	}
}

func published(c Config) Config {
	c.Forwards = []Forward{{Protocol: "tcp", HostPort: hostPort, Port: guestPort}}
	return c
}

func TestPublishedPortIsReachedFromEverywhere(t *testing.T) {
	h := requireHost(t)
	out, one, two, host := outside(t, h), newSpace(t, true), newSpace(t, true), hostSpace(t)
	forward(t)
	plug(t, one, published(config(1, "10.9.0.5/32", "fd09::5/128")))
	plug(t, two, config(2, "10.9.0.6/32", "fd09::6/128"))
	routeBack(t, out)
	for ip, test := range map[string]struct{ inside, host, out, other string }{
		"IPv4": {"10.9.0.5:8080", "198.51.100.1", "198.51.100.2", "10.9.0.6"},
		"IPv6": {"[fd09::5]:8080", "2001:db8:1::1", "2001:db8:1::2", "fd09::6"},
	} {
		l := one.listen(t, test.inside)
		at := net.JoinHostPort(test.host, "8001")
		if got := reach(t, out, l, at); got != test.out {
			t.Errorf("%s from outside: the container saw %s", ip, got)
		}
		if got := reach(t, two, l, at); got != test.other {
			t.Errorf("%s from another container: the container saw %s", ip, got)
		}
		reach(t, host, l, at)
		reach(t, one, l, at)
	}
	for _, loopback := range []string{"127.0.0.1:8001", "[::1]:8001"} {
		refused(t, host, loopback)
	}
}

func TestPublishedPortOfABridgedContainerIsReachedByItsNeighbours(t *testing.T) {
	h := requireHost(t)
	out, one, two := newSpace(t, false), newSpace(t, true), newSpace(t, true)
	forward(t)
	bridgeTo(t, h, out)
	bridge, err := h.LinkByName("br0")
	must(t, err)
	must(t, addAddress(h, bridge, netip.MustParsePrefix("10.8.0.1/24")))
	a, b := published(config(1, "10.8.0.5/24")), config(2, "10.8.0.6/24")
	a.Interfaces[0].Bridge, b.Interfaces[0].Bridge = "br0", "br0"
	plug(t, one, a)
	plug(t, two, b)
	out.within(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("out0")
		if err != nil {
			return err
		}
		return addAddress(h, l, netip.MustParsePrefix("10.8.0.7/24"))
	})
	l := one.listen(t, "10.8.0.5:8080")
	for name, from := range map[string]space{"neighbour": two, "outside": out, "itself": one} {
		if got := reach(t, from, l, "10.8.0.1:8001"); got != "10.8.0.1" {
			t.Errorf("from %s: the container saw %s", name, got)
		}
	}
	// Next to each other they see who they are.
	if got := reach(t, two, l, "10.8.0.5:8080"); got != "10.8.0.6" {
		t.Errorf("without forward: the container saw %s", got)
	}
}

func TestForwardOfOneAddressLeavesTheOthers(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	forward(t)
	c := published(config(1, "10.9.0.5/32", "fd09::5/128"))
	c.Forwards[0].HostAddress = netip.MustParseAddr("198.51.100.1")
	c.Forwards = append(c.Forwards, Forward{Protocol: "tcp", HostPort: 8002, Port: 8082})
	plug(t, ct, c)
	l := ct.listen(t, "10.9.0.5:8080")
	reach(t, out, l, "198.51.100.1:8001")
	refused(t, out, "[2001:db8:1::1]:8001")
	reach(t, out, ct.listen(t, "[fd09::5]:8082"), "[2001:db8:1::1]:8002")
}

func TestForwardGoesWithoutCuttingConnections(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	forward(t)
	c := published(config(1, "10.9.0.5/32"))
	plug(t, ct, c)
	l := ct.listen(t, "10.9.0.5:8080")
	client, err := out.dial("198.51.100.1:8001", 10*time.Second)
	must(t, err)
	defer client.Close()
	server, err := l.Accept()
	must(t, err)
	defer server.Close()
	c.Forwards = nil
	must(t, applyPolicy(ctx, c))
	refused(t, out, "198.51.100.1:8001")
	echo(t, client, server)
}

func TestUDPIsForwarded(t *testing.T) {
	h := requireHost(t)
	out, ct := outside(t, h), newSpace(t, true)
	forward(t)
	c := config(1, "10.9.0.5/32")
	c.Forwards = []Forward{{Protocol: "udp", HostPort: hostPort, Port: guestPort}}
	plug(t, ct, c)
	var server net.PacketConn
	must(t, enter(ct.ns, func() (err error) {
		server, err = net.ListenPacket("udp", "10.9.0.5:8080")
		return err
	}))
	defer server.Close()
	var client net.Conn
	must(t, enter(out.ns, func() (err error) {
		client, err = net.Dial("udp", "198.51.100.1:8001")
		return err
	}))
	defer client.Close()
	for _, conn := range []interface{ SetDeadline(time.Time) error }{client, server} {
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	}
	_, err := client.Write([]byte("question"))
	must(t, err)
	buf := make([]byte, 100)
	n, from, err := server.ReadFrom(buf)
	must(t, err)
	_, err = server.WriteTo([]byte("answer"), from)
	must(t, err)
	m, err := client.Read(buf[n:])
	must(t, err)
	if got := string(buf[:n]) + string(buf[n:n+m]); got != "questionanswer" {
		t.Errorf("got %q", got)
	}
}

func TestPortOfAnotherIsRefusedNamingIt(t *testing.T) {
	requireHost(t)
	t.Cleanup(func() {
		_, err := reapPolicy(ctx, func(string) bool { return false })
		must(t, errors.Join(err, Forget(ctx)))
	})
	prepare := func(n int, f Forward) error {
		c := config(n, fmt.Sprintf("10.9.0.%d/32", n), fmt.Sprintf("fd09::%d/128", n))
		c.Interfaces[0].NoFilter = true // there is no link
		c.Forwards = []Forward{f}
		return applyPolicy(ctx, c)
	}
	one := netip.MustParseAddr("192.0.2.1")
	must(t, prepare(1, Forward{Protocol: "tcp", HostPort: 8001, Port: 80}))
	must(t, prepare(2, Forward{Protocol: "tcp", HostPort: 8002, Port: 80, HostAddress: one}))
	listener, err := net.Listen("tcp4", "0.0.0.0:8003")
	must(t, err)
	defer listener.Close()
	listener6, err := net.Listen("tcp", "[::]:8004")
	must(t, err)
	defer listener6.Close()
	local, err := net.Listen("tcp", "127.0.0.1:8005")
	must(t, err)
	defer local.Close()
	socket, err := net.ListenPacket("udp", ":8006")
	must(t, err)
	defer socket.Close()
	name, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	process := fmt.Sprintf("%s (process %d)", bytes.TrimSpace(name), os.Getpid())
	before := ruleset(t)
	for name, test := range map[string]struct {
		f    Forward
		says string
	}{
		"the same":               {Forward{Protocol: "tcp", HostPort: 8001, Port: 81}, "container 000000000001"},
		"one address of all":     {Forward{Protocol: "tcp", HostPort: 8001, Port: 80, HostAddress: one}, "container 000000000001"},
		"the same address":       {Forward{Protocol: "tcp", HostPort: 8002, Port: 80, HostAddress: one}, "container 000000000002"},
		"all addresses":          {Forward{Protocol: "tcp", HostPort: 8002, Port: 80}, "container 000000000002"},
		"a service":              {Forward{Protocol: "tcp", HostPort: 8003, Port: 80}, process + " on 0.0.0.0:8003"},
		"one address of service": {Forward{Protocol: "tcp", HostPort: 8003, Port: 80, HostAddress: one}, process},
		"a service of IPv6":      {Forward{Protocol: "tcp", HostPort: 8004, Port: 80}, process + " on [::]:8004"},
		"a UDP service":          {Forward{Protocol: "udp", HostPort: 8006, Port: 80}, process},
	} {
		err := prepare(3, test.f)
		if !errors.Is(err, ErrPortInUse) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if after := ruleset(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("refusals changed something: %q, then %q", before, after)
	}
	for _, free := range []Forward{
		{Protocol: "udp", HostPort: 8001, Port: 80},
		{Protocol: "tcp", HostPort: 8005, Port: 80},
		{Protocol: "tcp", HostPort: 8002, Port: 80, HostAddress: netip.MustParseAddr("192.0.2.2")},
		{Protocol: "udp", HostPort: 8003, Port: 80},
	} {
		must(t, prepare(3, free))
	}
}

func TestBadForwardsAreRefusedWithTheirReason(t *testing.T) {
	for says, f := range map[string][]Forward{
		"neither tcp nor udp":  {{Protocol: "sctp", HostPort: 1, Port: 1}},
		"no port 0":            {{Protocol: "tcp", Port: 1}},
		"there is no port 0":   {{Protocol: "tcp", HostPort: 1}},
		"loopback":             {{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("127.0.0.1")}},
		"loopback addresses":   {{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("::1")}},
		"it is no address":     {{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("ff02::1")}},
		"can be reached at":    {{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("0.0.0.0")}},
		"no address of that":   {{Protocol: "tcp", HostPort: 1, Port: 1, HostAddress: netip.MustParseAddr("2001:db8::1")}},
		"is forwarded twice":   {{Protocol: "tcp", HostPort: 1, Port: 1}, {Protocol: "tcp", HostPort: 1, Port: 2}},
		"uid \"zz\" does not":  nil,
		"interface eth0: addr": nil,
	} {
		c := config(1, "10.9.0.5/32")
		c.Forwards = f
		switch {
		case strings.HasPrefix(says, "uid"):
			c.UID = "zz"
		case f == nil:
			c.Interfaces[0].MAC = "nonsense"
		}
		_, err := c.policy()
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), says) {
			t.Errorf("want %q, got %v", says, err)
		}
	}
}
