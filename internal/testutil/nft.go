package testutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// nftTables returns the names of the nft tables in the network namespace of
// the calling thread: none for whoever is not root there, or has no nf_tables.
func nftTables() (names []string, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.Sendto(fd, getTables(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("netlink: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("netlink: %w", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR: // EPERM, or no nf_tables
				return names, nil
			}
			if name := tableAttribute(m.Data); name != "" {
				names = append(names, name)
			}
		}
	}
}

// getTables is a dump request for every family: nlmsghdr and nfgenmsg.
func getTables() []byte {
	const length = unix.SizeofNlMsghdr + 4
	b := make([]byte, 0, length)
	b = binary.NativeEndian.AppendUint32(b, length)
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = binary.NativeEndian.AppendUint64(b, 1) // sequence, port
	return append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
}

// tableAttribute finds NFTA_TABLE_NAME behind the nfgenmsg.
func tableAttribute(b []byte) string {
	b = b[min(4, len(b)):]
	for len(b) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return ""
		}
		if binary.NativeEndian.Uint16(b[2:]) == unix.NFTA_TABLE_NAME {
			return unix.ByteSliceToString(b[unix.SizeofNlAttr:length])
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return ""
}
