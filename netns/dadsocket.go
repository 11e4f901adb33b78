package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// packets is a packet(7) socket of one protocol on one link. The Ethernet
// header is the kernel's, with the link's own address as sender.
type packets struct {
	fd       int
	protocol uint16 // in network order, as the kernel wants it
	index    int
}

// openPackets opens a socket in the namespace of the calling thread.
func openPackets(index int, protocol uint16) (packets, error) {
	p := packets{-1, native.Uint16(binary.BigEndian.AppendUint16(nil, protocol)), index}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return p, fmt.Errorf("open packet socket: %w", err)
	}
	p.fd = fd
	// Only neighbour discovery is of interest. Without a protocol the socket
	// receives nothing, so that nothing comes before the filter.
	if protocol == unix.ETH_P_IPV6 {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(discovery)), Filter: &discovery[0],
		})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: p.protocol, Ifindex: index})
	}
	if err != nil {
		return p, errors.Join(fmt.Errorf("open packet socket: %w", err), unix.Close(fd))
	}
	return p, nil
}

// discovery lets pass what is ICMPv6 (the byte at 6 of the IPv6 header) of type
// solicitation or advertisement (the byte behind the header).
var discovery = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 4, K: icmpv6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: sizeofIPv6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: ndSolicit},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: ndAdvertise},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K},
}

func (p packets) close() error { return unix.Close(p.fd) }

// join has the link receive a group's frames too.
func (p packets) join(mac net.HardwareAddr) error {
	m := unix.PacketMreq{Ifindex: int32(p.index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(mac))}
	copy(m.Address[:], mac)
	return unix.SetsockoptPacketMreq(p.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m)
}

// send sends a frame. A full queue is tried again for a moment.
func (p packets) send(to net.HardwareAddr, frame []byte) error {
	address := unix.SockaddrLinklayer{Protocol: p.protocol, Ifindex: p.index, Halen: uint8(len(to))}
	copy(address.Addr[:], to)
	deadline := time.Now().Add(patience)
	for {
		err := retryInterrupted(func() error { return unix.Sendto(p.fd, frame, 0, &address) })
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pollInterval)
	}
}

// receive returns the next frame of another and its sender; ok is false when
// there is none.
func (p packets) receive(buf []byte) (frame []byte, from net.HardwareAddr, ok bool, err error) {
	for {
		var n int
		var address unix.Sockaddr
		err := retryInterrupted(func() (err error) {
			n, address, err = unix.Recvfrom(p.fd, buf, 0)
			return err
		})
		if errors.Is(err, unix.EAGAIN) {
			return nil, nil, false, nil
		}
		if err != nil {
			return nil, nil, false, err
		}
		ll, isLink := address.(*unix.SockaddrLinklayer)
		if !isLink || ll.Pkttype == unix.PACKET_OUTGOING || ll.Halen != 6 {
			continue
		}
		return buf[:n], net.HardwareAddr(ll.Addr[:6:6]), true, nil
	}
}
