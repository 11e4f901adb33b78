package netns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The frames that these tests send are written byte by byte: what the filter has
// to see through are just the ones that no library makes.

var (
	everyone   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	everyNode  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	strangeMAC = net.HardwareAddr{2, 0xba, 0xdb, 0xad, 0, 1}
)

func rawEther(dst, src net.HardwareAddr, kind uint16, body ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(bytes.Clone(dst), src...), kind), bytes.Join(body, nil)...)
}

func rawIP4(src, dst string, protocol byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	h := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0}
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(b)))
	h = append(append(h, ipBytes(src)...), ipBytes(dst)...)
	var sum uint32
	for i := 0; i < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(sum))
	return append(h, b...)
}

func rawIP6(src, dst string, next byte, body ...[]byte) []byte {
	b := bytes.Join(body, nil)
	h := []byte{0x60, 0, 0, 0, 0, 0, next, 255}
	binary.BigEndian.PutUint16(h[4:], uint16(len(b)))
	return append(append(append(h, ipBytes(src)...), ipBytes(dst)...), b...)
}

func ipBytes(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

// rawUDP has no checksum, which IPv4 allows and no bridge or router minds.
func rawUDP(mark string) []byte {
	h := []byte{0, 9, 0, 9, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(mark)))
	return append(h, mark...)
}

func rawARP(op byte, sha net.HardwareAddr, spa string, tha net.HardwareAddr, tpa string) []byte {
	return bytes.Join([][]byte{{0, 1, 8, 0, 6, 4, 0, op}, sha, ipBytes(spa), tha, ipBytes(tpa)}, nil)
}

// rawND is a message of neighbour discovery, or another of ICMPv6: four bytes of
// flags, and what follows.
func rawND(kind byte, body ...[]byte) []byte {
	return append([]byte{kind, 0, 0, 0, 0x60, 0, 0, 0}, bytes.Join(body, nil)...)
}

func rawOption(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// capture is a socket that sees every frame of a link.
type capture struct {
	fd   int
	seen [][]byte
}

// capture listens on a link inside the space.
func (s space) capture(t testing.TB, link string) *capture {
	t.Helper()
	c := &capture{}
	must(t, enter(s.ns, func() error {
		n, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		wait := unix.Timeval{Usec: 100_000}
		return errors.Join(
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: n.Index}),
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
			unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<22),
		)
	}))
	t.Cleanup(func() { _ = unix.Close(c.fd) })
	return c
}

func (c *capture) send(t testing.TB, frame []byte) {
	t.Helper()
	must(t, unix.Send(c.fd, frame, 0))
}

// until reads frames until one holds mark.
func (c *capture) until(t testing.TB, mark []byte) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		must(t, err)
		c.seen = append(c.seen, bytes.Clone(buf[:n]))
		if bytes.Contains(buf[:n], mark) {
			return
		}
	}
	t.Fatalf("%q does not arrive", mark)
}

func (c *capture) saw(body []byte) bool {
	for _, f := range c.seen {
		if bytes.Contains(f, body) {
			return true
		}
	}
	return false
}
