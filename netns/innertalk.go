package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What is recorded from a namespace is kept as the kernel's own messages, so
// that nothing is lost that a library does not know. Hence this socket, which
// leaves messages as they are.

// talk is a netlink socket. It stays in the namespace in which it was opened,
// whatever thread uses it.
type talk struct {
	fd  int
	seq uint32
	// first is the number of the first message of the last request: what has a
	// lower one answers a request that was given up.
	first uint32
	buf   []byte
	// until bounds all questions together; the zero time does not.
	until time.Time
}

// nlMessage is one netlink message without its header.
type nlMessage struct {
	kind  uint16
	flags uint16
	data  []byte
}

const (
	// receiveSize holds the largest part of a dump: the kernel makes it as large
	// as the buffer of the reader, but at most 32 KiB (netlink_dump).
	receiveSize = 64 << 10
	// dumpTries bounds the repetition of a dump during which something changed.
	dumpTries = 10
	// maxDumpBytes bounds what one listing may take.
	maxDumpBytes = maxInnerBytes
)

// openTalk opens a socket in the namespace of the calling thread.
func openTalk(protocol int) (*talk, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	limit := unix.NsecToTimeval(int64(answerTimeout))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink socket: %w", err), unix.Close(fd))
	}
	return &talk{fd: fd, buf: make([]byte, receiveSize)}, nil
}

func (t *talk) close() error { return unix.Close(t.fd) }

// pack appends one message with its header.
func (t *talk) pack(b []byte, m nlMessage) []byte {
	t.seq++
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.data)))
	b = binary.NativeEndian.AppendUint16(b, m.kind)
	b = binary.NativeEndian.AppendUint16(b, m.flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, t.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return pad(append(b, m.data...))
}

func (t *talk) send(b []byte) error {
	if !t.until.IsZero() && time.Now().After(t.until) {
		return errRecordTime
	}
	err := retryInterrupted(func() error {
		return unix.Sendto(t.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
	if err != nil {
		return fmt.Errorf("ask the kernel: %w", err)
	}
	return nil
}

// dump lists what the request of this kind asks for.
func (t *talk) dump(kind uint16, request []byte) (all []nlMessage, err error) {
	for range dumpTries {
		t.first = t.seq + 1
		if err = t.send(t.pack(nil, nlMessage{kind, unix.NLM_F_DUMP, request})); err != nil {
			return nil, err
		}
		if all, err = t.collect(); !errors.Is(err, errInterrupted) {
			return all, err
		}
	}
	return nil, err
}

func (t *talk) collect() (all []nlMessage, err error) {
	size, interrupted := 0, false
	err = t.receive(func(h nlHeader, data []byte) (bool, error) {
		interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
		switch h.kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, kernelError(h.flags, data)
		}
		size += len(data)
		if size <= maxDumpBytes {
			all = append(all, nlMessage{h.kind, h.flags, append([]byte(nil), data...)})
		}
		return false, nil
	})
	switch {
	case err != nil:
		return nil, err
	case interrupted:
		return nil, errInterrupted
	case size > maxDumpBytes:
		return nil, ErrInnerSize
	}
	return all, nil
}

// do has the kernel carry out one request.
func (t *talk) do(kind, flags uint16, request []byte) error {
	return t.doAll([]nlMessage{{kind, flags, request}})
}

// doAll sends the messages as one, and reports the first error among them. Only
// the last is acknowledged: of many acknowledgements some would not fit into
// the socket's buffer. Errors are always reported (nfnetlink.c, af_netlink.c).
func (t *talk) doAll(all []nlMessage) error {
	return t.sendAcknowledged(all, len(all)-1)
}

func (t *talk) sendAcknowledged(all []nlMessage, acknowledged int) error {
	t.first = t.seq + 1
	var b []byte
	for i, m := range all {
		if i == acknowledged {
			m.flags |= unix.NLM_F_ACK
		}
		b = t.pack(b, m)
	}
	// A message must fit into the send buffer as a whole (netlink_sendmsg).
	if err := unix.SetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(b)+4096); err != nil {
		return fmt.Errorf("enlarge the send buffer: %w", err)
	}
	if err := t.send(b); err != nil {
		return err
	}
	last := t.first + uint32(acknowledged)
	var failed error
	err := t.receive(func(h nlHeader, data []byte) (bool, error) {
		if h.kind != unix.NLMSG_ERROR {
			return false, nil
		}
		if failed == nil {
			failed = kernelError(h.flags, data)
		}
		// A batch that fails as a whole is answered with its beginning.
		return h.seq == last || h.seq == t.first, nil
	})
	return errors.Join(failed, err)
}

type nlHeader struct {
	kind, flags uint16
	seq         uint32
}

// receive gives the messages that answer the last request to each, until that
// says that it has seen all.
func (t *talk) receive(each func(h nlHeader, data []byte) (done bool, err error)) error {
	deadline := time.Now().Add(answerTimeout)
	for {
		var n, flags int
		var from unix.Sockaddr
		err := retryInterrupted(func() (err error) {
			n, _, flags, from, err = unix.Recvmsg(t.fd, t.buf, nil, 0)
			return err
		})
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		if !ofKernel(from) {
			n, flags = 0, 0
		}
		if flags&unix.MSG_TRUNC != 0 {
			return errors.New("read the kernel's answer: a message is larger than the buffer")
		}
		for b := t.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return errors.New("read the kernel's answer: a message has an impossible length")
			}
			h := nlHeader{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:])}
			data := b[unix.SizeofNlMsghdr:size]
			b = b[min(align(size), len(b)):]
			if h.seq < t.first {
				continue
			}
			if done, err := each(h, data); done || err != nil {
				return err
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("read the kernel's answer: %w", unix.ETIMEDOUT)
		}
	}
}

// kernelError reads the error number that a message of type NLMSG_ERROR or
// NLMSG_DONE begins with, and the reason in words, if there is one.
func kernelError(flags uint16, data []byte) error {
	if len(data) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(data))
	if code >= 0 {
		return nil
	}
	const capped = unix.SizeofNlMsgerr // the header of the request follows the number
	if flags&unix.NLM_F_ACK_TLVS != 0 && len(data) > capped {
		if attributes, err := parseTLVs(data[capped:]); err == nil {
			if why, ok := find(attributes, unix.NLMSGERR_ATTR_MSG); ok {
				return fmt.Errorf("%w (%s)", unix.Errno(-code), text(why))
			}
		}
	}
	return unix.Errno(-code)
}

func retryInterrupted(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
