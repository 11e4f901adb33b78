package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const insideEnv = "CTCTL_NETNS_TEST_INSIDE"

// TestMain runs the tests of root in a network namespace of their own, which
// plays the host: the whole process is in it, whatever thread a test runs on.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(insideEnv) != "" {
		testutil.Main(m)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// requireHost skips unless the test is in its own namespace, and fails it when
// it leaves links, routes, tables or descriptors behind.
func requireHost(t testing.TB) *netlink.Handle {
	t.Helper()
	testutil.Require(t, testutil.Root, testutil.UserNS)
	h, err := openRoute()
	must(t, err)
	lo, err := h.LinkByName("lo")
	must(t, err)
	must(t, h.LinkSetUp(lo))
	before := inventory(t, h)
	t.Cleanup(func() {
		if after := inventory(t, h); after != before {
			t.Errorf("left behind: before:\n%s\nafter:\n%s", before, after)
		}
		h.Close()
	})
	return h
}

func inventory(t testing.TB, h *netlink.Handle) string {
	t.Helper()
	var lines []string
	links, err := h.LinkList()
	must(t, err)
	for _, l := range links {
		lines = append(lines, "link "+l.Attrs().Name)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteList(nil, family)
		must(t, err)
		for _, r := range routes {
			if r.Protocol == RouteProtocol {
				lines = append(lines, fmt.Sprintf("route %s type %d link %d", r.Dst, r.Type, r.LinkIndex))
			}
		}
	}
	conn, err := openFilter(0)
	must(t, err)
	tables, err := conn.ListTables()
	must(t, err)
	must(t, conn.CloseLasting())
	for _, table := range tables {
		lines = append(lines, "table "+table.Name)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:") {
			continue // the directory itself; the runtime's poller
		}
		lines = append(lines, "fd "+fd.Name())
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// space is a process in a network namespace of its own.
type space struct {
	pid int
	ns  *os.File
}

// newSpace starts the process; user gives it a user namespace too, as a
// container has, which then owns the network namespace.
func newSpace(t testing.TB, user bool) space {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if user {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1879048192, Size: 65536}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
	}
	must(t, cmd.Start())
	ns, err := openOf(cmd.Process.Pid)
	must(t, err)
	t.Cleanup(func() {
		must(t, ns.Close())
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // reports the kill
		waitForLinks(t)
	})
	return space{cmd.Process.Pid, ns}
}

// waitForLinks waits until the kernel has taken down the namespaces that ended,
// which it does in the background; their pairs vanish from the host with them.
func waitForLinks(t testing.TB) {
	t.Helper()
	for range 500 {
		names, err := Links(context.Background())
		must(t, err)
		if len(names) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// within runs do inside the space.
func (s space) within(t testing.TB, do func(h *netlink.Handle) error) {
	t.Helper()
	must(t, enter(s.ns, func() error {
		h, err := openRoute()
		if err != nil {
			return err
		}
		defer h.Close()
		return do(h)
	}))
}

func (s space) listen(t testing.TB, address string) *net.TCPListener {
	t.Helper()
	var l *net.TCPListener
	must(t, enter(s.ns, func() error {
		n, err := net.Listen("tcp", address)
		if err == nil {
			l = n.(*net.TCPListener)
		}
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func (s space) dial(address string, timeout time.Duration) (c net.Conn, err error) {
	err = enter(s.ns, func() error {
		c, err = net.DialTimeout("tcp", address, timeout)
		return err
	})
	return c, err
}

// sysctl reads a setting inside the space.
func (s space) sysctl(t testing.TB, elem ...string) string {
	t.Helper()
	var b []byte
	must(t, enter(s.ns, func() (err error) {
		b, err = os.ReadFile(sysctlPath(elem...))
		return err
	}))
	return strings.TrimSpace(string(b))
}

// config makes a configuration for container number n, with one routed interface.
func config(n int, addresses ...string) Config {
	return Config{UID: fmt.Sprintf("%012x0000", n), Interfaces: []Interface{{Name: "eth0", Addresses: prefixes(addresses...)}}}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range texts {
		out = append(out, netip.MustParsePrefix(a))
	}
	return out
}

// macs is the hardware address of the first interface's end: 0 is the
// container's, 1 the host's.
func macs(c Config, end int) string {
	container, host := c.macs(c.Interfaces[0])
	return []string{container.String(), host.String()}[end]
}

func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	a := netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return h.AddrReplace(link, &a)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// forward makes the host a router.
func forward(t testing.TB) {
	t.Helper()
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		_, err := setSysctl(sysctlPath(name), "1")
		must(t, err)
	}
}

// plug attaches and joins, and takes everything down at the test's end.
func plug(t testing.TB, s space, c Config) {
	t.Helper()
	t.Cleanup(func() {
		must(t, Leave(context.Background(), c, false))
		must(t, Forget(context.Background()))
	})
	must(t, Attach(context.Background(), s.pid, c))
	must(t, Join(context.Background(), c))
}

// outside makes a second host, linked by up0 to the host under test.
func outside(t testing.TB, h *netlink.Handle) space {
	t.Helper()
	s := newSpace(t, false)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "up1", PeerNamespace: netlink.NsFd(int(s.ns.Fd())), PeerTxQLen: -1}))
	up0, err := h.LinkByName("up0")
	must(t, err)
	t.Cleanup(func() { must(t, h.LinkDel(up0)) })
	configure := func(h *netlink.Handle, link netlink.Link, addresses ...string) error {
		for _, a := range addresses {
			if err := addAddress(h, link, netip.MustParsePrefix(a)); err != nil {
				return err
			}
		}
		return h.LinkSetUp(link)
	}
	must(t, configure(h, up0, "198.51.100.1/24", "2001:db8:1::1/64"))
	s.within(t, func(h *netlink.Handle) error {
		up1, err := h.LinkByName("up1")
		if err != nil {
			return err
		}
		return configure(h, up1, "198.51.100.2/24", "2001:db8:1::2/64")
	})
	return s
}

// routeBack gives the outside a route to the containers' addresses.
func routeBack(t testing.TB, s space) {
	t.Helper()
	s.within(t, func(h *netlink.Handle) error {
		for dst, gw := range map[string]string{"10.9.0.0/16": "198.51.100.1", "fd09::/64": "2001:db8:1::1"} {
			_, n, err := net.ParseCIDR(dst)
			if err != nil {
				return err
			}
			if err := h.RouteAdd(&netlink.Route{Dst: n, Gw: net.ParseIP(gw)}); err != nil {
				return err
			}
		}
		return nil
	})
}
