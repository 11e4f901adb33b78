package obstacle

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketKinds are sockets that CRIU may not know how to save.
var socketKinds = map[string]kind{
	"vsock":          {make: func() error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) }},
	"mptcp":          {make: mptcp},
	"sctp":           {make: func() error { return socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP) }},
	"smc":            {make: func() error { return socket(unix.AF_SMC, unix.SOCK_STREAM, 0) }},
	"tipc":           {make: func() error { return socket(unix.AF_TIPC, unix.SOCK_STREAM, 0) }},
	"can":            {make: func() error { return socket(unix.AF_CAN, unix.SOCK_RAW, 1) }},
	"kcm":            {make: func() error { return socket(unix.AF_KCM, unix.SOCK_DGRAM, 0) }},
	"alg":            {make: func() error { return socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0) }},
	"xdp":            {make: func() error { return socket(unix.AF_XDP, unix.SOCK_RAW, 0) }},
	"packet":         {make: packet},
	"packet-unbound": {make: func() error { return socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0) }},
	"raw-icmp":       {make: func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
	"raw-icmp6":      {make: func() error { return socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6) }},
	"raw-connected":  {make: rawConnected},
	"ping":           {make: ping},
	"netlink-unread": {make: netlinkUnread},
	"unix-fd":        {make: unixDescriptor},
	"unix-io_uring":  {make: unixForbidden},
	"unix-creds":     {make: unixCredentials},
	"udp-corked":     {make: udpCorked},
}

func socket(family, kind, proto int) error {
	_, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
	return step("socket", err)
}

func mptcp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		return step("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	return unix.Listen(fd, 5)
}

func packet() error {
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
}

// rawConnected has an answer that it does not read, like a ping under way.
func rawConnected() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return step("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return step("connect", err)
	}
	_, err = unix.Write(fd, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0})
	return step("send", err)
}

// ping makes the socket that ping(8) has.
func ping() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0o600); err != nil {
		return err
	}
	return socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
}

// netlinkUnread asks for all links and does not read the answer.
func netlinkUnread() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	req := struct {
		unix.NlMsghdr
		unix.IfInfomsg
	}{NlMsghdr: unix.NlMsghdr{Type: unix.RTM_GETLINK, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Seq: 1}}
	req.Len = uint32(unsafe.Sizeof(req))
	b := unsafe.Slice((*byte)(unsafe.Pointer(&req)), unsafe.Sizeof(req))
	return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

func send(kind int, rights []int, creds bool) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if creds {
		if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return err
		}
	}
	var oob []byte
	if rights != nil {
		oob = unix.UnixRights(rights...)
	}
	return step("sendmsg", unix.Sendmsg(pair[0], []byte("x"), oob, nil, 0))
}

func unixDescriptor() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	if err := send(unix.SOCK_STREAM, p[:], false); err != nil {
		return err
	}
	return unix.Close(p[0]) // it is in the socket's queue alone
}

// unixForbidden leaves in a queue what CRIU refuses elsewhere.
func unixForbidden() error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := send(unix.SOCK_STREAM, []int{fd}, false); err != nil {
		return err
	}
	return unix.Close(fd)
}

func unixCredentials() error { return send(unix.SOCK_DGRAM, nil, true) }

func udpCorked() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, 1 /* UDP_CORK */, 1); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("x"))
	return err
}
