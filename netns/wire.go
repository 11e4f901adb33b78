package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds the wait for one answer of the kernel.
const answerTimeout = 10 * time.Second

// errInterrupted means that what was being listed changed meanwhile, so that the
// listing may have holes (NLM_F_DUMP_INTR, netlink(7)).
var errInterrupted = errors.New("the listing was interrupted by changes")

var native = binary.NativeEndian

// socket speaks rtnetlink(7) with the kernel, in the network namespace of the
// thread that opened it. Answers are read into one buffer, and listings are
// filtered by the kernel where it can (NETLINK_GET_STRICT_CHK, Linux 4.20).
type socket struct {
	fd  int
	seq uint32
	buf []byte
	// fault, if there is one, is asked before every message; see callFaultKey.
	fault func() error
}

func openSocket() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, 64<<10)}
	wait := unix.NsecToTimeval(answerTimeout.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open route socket: %w", err), s.close())
	}
	return s, nil
}

func (s *socket) close() error {
	if s == nil {
		return nil
	}
	return unix.Close(s.fd)
}

// ask sends one message and gives every answer to each. The answer's bytes are
// valid only during the call.
func (s *socket) ask(typ, flags uint16, body []byte, each func([]byte)) error {
	if s.fault != nil {
		if err := s.fault(); err != nil {
			return err
		}
	}
	if flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
		flags |= unix.NLM_F_ACK
		return s.exchange(typ, flags, body, each)
	}
	return whole(func(each func([]byte)) error { return s.exchange(typ, flags, body, each) }, each)
}

// whole lists again when a listing was interrupted. What the interrupted one had
// may be gone by now, so that only those of a complete one are given to each.
func whole(list func(each func([]byte)) error, each func([]byte)) error {
	const tries = 10
	var err error
	for range tries {
		var items []byte // all of them
		var ends []int   // where each of them ends
		err = list(func(b []byte) {
			items = append(items, b...)
			ends = append(ends, len(items))
		})
		if errors.Is(err, errInterrupted) {
			continue
		}
		for i, start := 0, 0; each != nil && err == nil && i < len(ends); i++ {
			each(items[start:ends[i]:ends[i]])
			start = ends[i]
		}
		return err
	}
	return err
}

func (s *socket) exchange(typ, flags uint16, body []byte, each func([]byte)) error {
	s.seq++
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	native.PutUint32(msg[0:], uint32(unix.NLMSG_HDRLEN+len(body)))
	native.PutUint16(msg[4:], typ)
	native.PutUint16(msg[6:], flags|unix.NLM_F_REQUEST)
	native.PutUint32(msg[8:], s.seq)
	if err := s.send(append(msg, body...)); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	interrupted := false
	for deadline := time.Now().Add(answerTimeout); ; {
		if time.Now().After(deadline) {
			return os.NewSyscallError("recvfrom", unix.ETIMEDOUT)
		}
		n, err := s.receive()
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		done, err := s.answers(s.buf[:n], each, &interrupted)
		if done || err != nil {
			if err == nil && interrupted {
				return errInterrupted
			}
			return err
		}
	}
}

func (s *socket) send(msg []byte) error {
	return retryInterrupted(func() error {
		return unix.Sendto(s.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
}

// receive returns the size of a datagram, 0 when it is not of the kernel.
func (s *socket) receive() (int, error) {
	for {
		n, from, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && !ofKernel(from):
			return 0, nil
		case err == nil && n > len(s.buf):
			return 0, unix.EMSGSIZE
		}
		return n, err
	}
}

// ofKernel says whether the kernel has sent a message. Whoever administers a
// network namespace can send messages to the netlink sockets there, and those of a
// container could pretend to be answers (netlink(7)).
func ofKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == 0
}

// answers goes through one datagram; done is the end of the exchange.
func (s *socket) answers(b []byte, each func([]byte), interrupted *bool) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(native.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return true, unix.EBADMSG
		}
		typ, flags, seq := native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:])
		body := b[unix.NLMSG_HDRLEN:size]
		b = b[min(align(size), len(b)):]
		if seq != s.seq {
			continue // of an exchange that was given up
		}
		*interrupted = *interrupted || flags&unix.NLM_F_DUMP_INTR != 0
		switch {
		case typ == unix.NLMSG_ERROR, typ == unix.NLMSG_DONE:
			return true, outcome(body, flags)
		case each != nil:
			each(body)
		}
	}
	return false, nil
}

// outcome reads the error number, and the kernel's explanation if there is one.
func outcome(b []byte, flags uint16) error {
	if len(b) < 4 {
		return nil
	}
	code := -int32(native.Uint32(b))
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(code))
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(b) < 4+unix.NLMSG_HDRLEN {
		return err
	}
	skip := 4 + unix.NLMSG_HDRLEN
	if flags&unix.NLM_F_CAPPED == 0 {
		skip = 4 + align(int(native.Uint32(b[4:])))
	}
	if skip > len(b) {
		return err
	}
	eachAttr(b[skip:], func(typ uint16, v []byte) {
		if typ == unix.NLMSGERR_ATTR_MSG {
			err = fmt.Errorf("%w: %s", err, text(v))
		}
	})
	return err
}

func align(n int) int { return (n + 3) &^ 3 }

// text reads a string that ends with a zero byte.
func text(b []byte) string { return strings.TrimRight(string(b), "\x00") }

// eachAttr goes through attributes; it stops at one that is cut off.
func eachAttr(b []byte, do func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		do(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size])
		b = b[min(align(size), len(b)):]
	}
}

// message is the body of a request under construction.
type message []byte

func (m message) attr(typ uint16, value []byte) message {
	return appendTLV(m, typ, value)
}

func (m message) u32(typ uint16, v int) message {
	return m.attr(typ, native.AppendUint32(nil, uint32(v)))
}

func (m message) u8(typ uint16, v byte) message { return m.attr(typ, []byte{v}) }

func (m message) str(typ uint16, s string) message { return m.attr(typ, append([]byte(s), 0)) }

func (m message) nest(typ uint16, inner message) message {
	return m.attr(typ|unix.NLA_F_NESTED, inner)
}

// linkBody begins a message about a link: struct ifinfomsg.
func linkBody(family byte, index int, flags, mask uint32) message {
	m := make(message, unix.SizeofIfInfomsg, 128)
	m[0] = family
	native.PutUint32(m[4:], uint32(index))
	native.PutUint32(m[8:], flags)
	native.PutUint32(m[12:], mask)
	return m
}

// addrBody is struct ifaddrmsg.
func addrBody(family byte, bits int, flags, scope byte, index int) message {
	m := make(message, unix.SizeofIfAddrmsg, 64)
	m[0], m[1], m[2], m[3] = family, byte(bits), flags, scope
	native.PutUint32(m[4:], uint32(index))
	return m
}

// neighBody is struct ndmsg.
func neighBody(family byte, index int, state uint16, flags byte) message {
	m := make(message, unix.SizeofNdMsg, 64)
	m[0] = family
	native.PutUint32(m[4:], uint32(index))
	native.PutUint16(m[8:], state)
	m[10] = flags
	return m
}

// routeBody is struct rtmsg; table numbers beyond 255 go into RTA_TABLE.
func routeBody(r unix.RtMsg) message {
	m := make(message, unix.SizeofRtMsg, 128)
	m[0], m[1], m[2], m[3] = r.Family, r.Dst_len, r.Src_len, r.Tos
	m[4], m[5], m[6], m[7] = r.Table, r.Protocol, r.Scope, r.Type
	native.PutUint32(m[8:], r.Flags)
	return m
}

// ruleBody is struct fib_rule_hdr, laid out as struct rtmsg.
func ruleBody(family byte, sourceBits int, table int, action byte) message {
	m := make(message, 12, 96)
	m[0], m[2], m[7] = family, byte(sourceBits), action
	if table < 256 {
		m[4] = byte(table)
	}
	return m
}
