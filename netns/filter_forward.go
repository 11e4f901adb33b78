package netns

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var forwardProtocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

// endpoint is what of the host a forward takes: an unspecified address stands for
// all the host has of that IP version, but for the loopback ones.
type endpoint struct {
	protocol byte
	addr     netip.AddrPort
}

func (e endpoint) String() string {
	name := "tcp"
	if e.protocol == unix.IPPROTO_UDP {
		name = "udp"
	}
	where := "of " + e.addr.Addr().String()
	switch {
	case !e.addr.Addr().IsUnspecified():
	case e.addr.Addr().Is4():
		where = "over IPv4"
	default:
		where = "over IPv6"
	}
	return fmt.Sprintf("%s port %d %s", name, e.addr.Port(), where)
}

// meets says whether a packet could be meant for both.
func (e endpoint) meets(o endpoint) bool {
	a, b := e.addr.Addr(), o.addr.Addr()
	return e.protocol == o.protocol && e.addr.Port() == o.addr.Port() && a.Is4() == b.Is4() &&
		(a == b || a.IsUnspecified() || b.IsUnspecified())
}

// key is the element's: address . protocol . port, each padded to four bytes.
func (e endpoint) key() string {
	port := e.addr.Port()
	return string(append(e.addr.Addr().AsSlice(), e.protocol, 0, 0, 0, byte(port>>8), byte(port), 0, 0))
}

func endpointOf(key string) (endpoint, bool) {
	n := len(key) - 8
	if n < 0 {
		return endpoint{}, false
	}
	a, ok := netip.AddrFromSlice([]byte(key[:n]))
	return endpoint{key[n], netip.AddrPortFrom(a, uint16(key[n+4])<<8|uint16(key[n+5]))}, ok
}

// targetValue is the data of an element: address . port.
func targetValue(to netip.AddrPort) string {
	port := to.Port()
	return string(append(to.Addr().AsSlice(), byte(port>>8), byte(port), 0, 0))
}

// first returns the container's first address of an IP version.
func (c Config) first(is4 bool) (netip.Addr, bool) {
	for _, i := range c.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr().Is4() == is4 {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// forwards returns where each endpoint of the host leads.
func (c Config) forwards() (map[endpoint]netip.AddrPort, error) {
	out := make(map[endpoint]netip.AddrPort)
	for _, f := range c.Forwards {
		protocol, ok := forwardProtocols[f.Protocol]
		if !ok {
			return nil, badConfig("forward of %q: the protocol is neither tcp nor udp", f.Protocol)
		}
		if f.HostPort == 0 || f.Port == 0 {
			return nil, badConfig("forward of %s port %d to %d: there is no port 0", f.Protocol, f.HostPort, f.Port)
		}
		hosts := []netip.Addr{f.HostAddress}
		if !f.HostAddress.IsValid() {
			hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
		} else if err := checkHostAddress(f.HostAddress); err != nil {
			return nil, err
		}
		led := false
		for _, host := range hosts {
			to, ok := c.first(host.Is4())
			if !ok {
				continue
			}
			led = true
			e := endpoint{protocol, netip.AddrPortFrom(host, f.HostPort)}
			if _, twice := out[e]; twice {
				return nil, badConfig("%s is forwarded twice", e)
			}
			out[e] = netip.AddrPortFrom(to, f.Port)
		}
		if !led {
			return nil, badConfig("forward of %s port %d: the container has no address of that IP version", f.Protocol, f.HostPort)
		}
	}
	return out, nil
}

// checkHostAddress refuses addresses whose packets never come from outside, or
// not for the host.
func checkHostAddress(a netip.Addr) error {
	switch {
	case a.IsLoopback():
		// It would need route_localnet, with which neighbours reach services that
		// listen on 127.0.0.1 only (CVE-2020-8558).
		return badConfig("forward of %s: loopback addresses cannot be forwarded, use another address of the host", a)
	case a.IsUnspecified(), a.IsMulticast(), a.Is4In6(), a.Zone() != "", a.IsLinkLocalUnicast() && a.Is6():
		return badConfig("forward of %s: it is no address that a host can be reached at", a)
	}
	return nil
}

// procNet holds the sockets of the calling thread's namespace.
const procNet = "/proc/thread-self/net"

// listener finds a socket of the host that listens where a forward would take its
// connections away; "" is none. A socket on all IPv6 addresses is taken to listen
// on the IPv4 ones too, since the kernel does not tell.
func listener(e endpoint) (string, error) {
	file, state := "tcp", "0A" // TCP_LISTEN, and what unconnected UDP has
	if e.protocol == unix.IPPROTO_UDP {
		file, state = "udp", "07"
	}
	for _, suffix := range []string{"", "6"} {
		inode, at, err := listening(filepath.Join(procNet, file+suffix), state, e.addr)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return "", fmt.Errorf("list the host's sockets: %w", err)
		}
		if inode != "" {
			return fmt.Sprintf("%s on %s", processOf(inode), at), nil
		}
	}
	return "", nil
}

// listening looks through a table of sockets, see proc_pid_net(5): the second
// field is the local address, the fourth the state, the tenth the inode.
func listening(path, state string, want netip.AddrPort) (inode string, at netip.AddrPort, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", at, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return "", at, lines.Err()
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[3] != state {
			continue
		}
		at, ok := parseSocket(fields[1])
		if !ok || at.Port() != want.Port() || at.Addr().IsLoopback() {
			continue
		}
		anywhere := at.Addr().IsUnspecified() && (at.Addr().Is6() || want.Addr().Is4())
		if anywhere || at.Addr() == want.Addr() || (want.Addr().IsUnspecified() && at.Addr().Is4() == want.Addr().Is4()) {
			return fields[9], at, nil
		}
	}
}

// parseSocket reads "0100007F:1F90": the address in 32-bit words of the
// machine's byte order, here little-endian or big-endian alike, and the port.
func parseSocket(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	if !ok {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for word := range slices.Chunk(b, 4) {
			slices.Reverse(word)
		}
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}

var littleEndian = nativeUint32(1)[0] == 1

// processOf names the process that holds a socket, as far as it can be found.
func processOf(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is well formed
	for _, l := range links {
		if target, err := os.Readlink(l); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		name, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			break
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
	}
	return "a process of the host"
}
