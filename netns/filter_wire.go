package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// filterConn reads the packet filter without decoding more than is asked for, and
// writes by the library. Every change to one container has to look through the
// elements of all; 600 of them take the library a millisecond.
type filterConn struct {
	*nftables.Conn
	fd  int
	buf []byte
}

func openPolicy() (*filterConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open packet filter socket: %w", err)
	}
	timeout := unix.NsecToTimeval(filterTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, errors.Join(fmt.Errorf("open packet filter socket: %w", err), unix.Close(fd))
	}
	conn, err := openFilter(0)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// The kernel fills up to 32 KiB at once for who reads as much.
	return &filterConn{conn, fd, make([]byte, 64<<10)}, nil
}

func (c *filterConn) close() error { return errors.Join(c.CloseLasting(), unix.Close(c.fd)) }

// attributes walks through netlink attributes, see netlink(7) and nlattr in
// linux/netlink.h. It ends where the bytes make no sense any more. Kinds come with
// their flags.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	const header = 4
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= header {
			length := int(binary.NativeEndian.Uint16(b))
			if length < header || length > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:]), b[header:length]) {
				return
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

const attributeFlags = unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER

func attribute(b []byte, kind uint16) []byte {
	for k, v := range attributes(b) {
		if k&^attributeFlags == kind {
			return v
		}
	}
	return nil
}

// headers are those of netlink and of netfilter: struct nlmsghdr, nfgenmsg.
const headers = unix.SizeofNlMsghdr + 4

// encodeMessage encodes one message; resource is nfgenmsg's in the host's byte order.
func encodeMessage(kind int, flags uint16, family byte, resource uint16, attrs []byte) []byte {
	b := make([]byte, headers, headers+len(attrs))
	binary.NativeEndian.PutUint32(b, uint32(headers+len(attrs)))
	binary.NativeEndian.PutUint16(b[4:], uint16(kind))
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	b[unix.SizeofNlMsghdr] = family
	binary.BigEndian.PutUint16(b[unix.SizeofNlMsghdr+2:], resource)
	return append(b, attrs...)
}

func filterMessage(kind int, flags uint16, family nftables.TableFamily, attrs []byte) []byte {
	return encodeMessage(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, byte(family), 0, attrs)
}

// request sends messages, and hands the attributes of each answer to each; they
// are valid only until it returns.
func (c *filterConn) request(msg []byte, each func(attrs []byte)) error {
	if err := retryInterrupted(func() error {
		return unix.Sendto(c.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return err
	}
	intact := true
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := c.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.SizeofNlMsghdr || length > len(b) {
				return errors.New("the packet filter sends a malformed answer")
			}
			kind, flags := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
			intact = intact && flags&unix.NLM_F_DUMP_INTR == 0
			switch {
			case kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE:
				return answer(b[unix.SizeofNlMsghdr:length], intact)
			case length >= headers:
				each(b[headers:length])
			}
			if flags&unix.NLM_F_MULTI == 0 {
				return nil
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

// errFilterChanging means that the ruleset changed while it was read.
var errFilterChanging = errors.New("the packet filter does not stop changing")

// answer reads the last message, which begins with a negative error or 0.
func answer(b []byte, intact bool) error {
	if len(b) >= 4 {
		if code := int32(binary.NativeEndian.Uint32(b)); code != 0 {
			return unix.Errno(-code)
		}
	}
	if !intact {
		return errFilterChanging
	}
	return nil
}

// dump asks for all objects of a kind in a table. A table or set that is absent
// has none; known says whether it is there. begin is called before each try.
func (c *filterConn) dump(kind int, table *nftables.Table, name string, nameKind uint16, begin func(), each func(attrs []byte)) (known bool, err error) {
	const tries = 10
	attrs := appendTextTLV(nil, 1, table.Name) // 1 is the table, of every kind
	if name != "" {
		attrs = appendTextTLV(attrs, nameKind, name)
	}
	for range tries {
		begin()
		err = c.request(filterMessage(kind, unix.NLM_F_DUMP, table.Family, attrs), each)
		if !errors.Is(err, errFilterChanging) {
			break
		}
	}
	if isAbsent(err) {
		return false, nil
	}
	return err == nil, err
}

// generation counts the transactions of all processes; it stays the same as long
// as nobody changes anything.
func (c *filterConn) generation() (id uint32, err error) {
	err = c.request(filterMessage(unix.NFT_MSG_GETGEN, 0, nftables.TableFamilyUnspecified, nil), func(attrs []byte) {
		if b := attribute(attrs, unix.NFTA_GEN_ID); len(b) == 4 {
			id = binary.BigEndian.Uint32(b)
		}
	})
	return id, err
}
