package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// connection is one end of a Unix connection.
type connection struct{ inode, peer uint32 }

// holder is who has a socket open.
type holder struct {
	p        *process
	fd       int
	protocol string
}

// checkConnections looks for connections that lead out of the tree, as that of a
// client that was started by exec: CRIU can't save one end only.
func (x *examination) checkConnections(r *reader) error {
	list, err := x.connections()
	if vanished(err) {
		return nil // init has just ended
	}
	if err != nil {
		return fmt.Errorf("list the Unix sockets: %w", err)
	}
	strange := map[string]connection{}
	for _, c := range list {
		if h := x.holders[socketLink(c.inode)]; h != nil && x.holders[socketLink(c.peer)] == nil {
			strange[socketLink(c.peer)] = c
		}
	}
	if len(strange) == 0 {
		return nil
	}
	for _, p := range x.strays {
		each(r, p, func(fd int, link string) {
			c, ok := strange[link]
			if !ok {
				return
			}
			delete(strange, link)
			h := x.holders[socketLink(c.inode)]
			what := fmt.Sprintf("Unix connection with process %d (%s), which was started by exec", p.inner, p.comm)
			x.add(r, h.p, h.fd, "unix-outside", "unix-outside", what, map[string]string{"other": strconv.Itoa(p.pid)})
		})
	}
	for link, c := range strange {
		h := x.holders[socketLink(c.inode)]
		f := x.finding(r, h.p, h.fd, "unix-elsewhere", "unix-elsewhere", "Unix connection whose other end is not the container's", nil)
		x.doubtful(f, func(r *reader) bool { return x.stillElsewhere(r, c, link) })
	}
	return nil
}

// stillElsewhere looks once more through the whole tree: a connection may have
// been made while it was walked.
func (x *examination) stillElsewhere(r *reader, c connection, link string) bool {
	here, there := false, false
	for _, p := range x.list {
		each(r, p, func(_ int, l string) {
			here = here || l == socketLink(c.inode)
			there = there || l == link
		})
	}
	return here && !there
}

// each calls f with every descriptor of a process.
func each(r *reader, p *process, f func(fd int, link string)) {
	fds, err := numbers(p.path + "/fd")
	if err != nil {
		return // it has ended
	}
	for _, fd := range fds {
		if link, err := r.readlink(p.path + "/fd/" + strconv.Itoa(fd)); err == nil {
			f(fd, link)
		}
	}
}

func socketLink(inode uint32) string { return "socket:[" + strconv.FormatUint(uint64(inode), 10) + "]" }

// Layout of sock_diag(7) for Unix sockets.
const (
	sockDiagByFamily = 20
	diagShowPeer     = 1 << 2
	diagPeer         = 2 // attribute
	diagMessage      = 16
	stateEstablished = 1
	mostReplies      = 64 << 20 // bytes
)

type diagRequest struct {
	header   unix.NlMsghdr
	family   uint8
	protocol uint8
	_        uint16
	states   uint32
	inode    uint32
	show     uint32
	cookie   [2]uint32
}

// connections lists the established stream and seqpacket connections of the
// container's network namespace.
func (x *examination) connections() ([]connection, error) {
	fd, err := x.diagSocket()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	q := diagRequest{family: unix.AF_UNIX, states: 1 << stateEstablished, show: diagShowPeer, cookie: [2]uint32{^uint32(0), ^uint32(0)}}
	q.header = unix.NlMsghdr{Type: sockDiagByFamily, Flags: unix.NLM_F_REQUEST | unix.NLM_F_DUMP, Len: uint32(unsafe.Sizeof(q)), Seq: 1}
	request := unsafe.Slice((*byte)(unsafe.Pointer(&q)), unsafe.Sizeof(q))
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var list []connection
	buf := make([]byte, 64<<10)
	for total := 0; total < mostReplies; {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		total += n
		some, done, err := parseDiag(buf[:n])
		list = append(list, some...)
		if done || err != nil {
			return list, err
		}
	}
	return list, nil
}

// diagSocket makes a socket in the container's network namespace, where a thread
// goes for a moment. A thread that does not come back is never used again.
func (x *examination) diagSocket() (fd int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var back error
		fd, back, err = diagSocketIn(x.root.path + "/ns/net")
		if back == nil {
			runtime.UnlockOSThread()
			return
		}
		if err == nil {
			err = errors.Join(back, unix.Close(fd))
		}
	}()
	<-done
	return fd, err
}

// diagSocketIn works on the calling thread; back is nil when that is where it was.
func diagSocketIn(namespace string) (fd int, back, err error) {
	there, err := open(namespace, unix.O_RDONLY)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(there)
	home, err := open("/proc/thread-self/ns/net", unix.O_RDONLY)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(home)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	return fd, unix.Setns(home, unix.CLONE_NEWNET), err
}

// parseDiag reads one reply; done says that it was the last.
func parseDiag(b []byte) (list []connection, done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return list, true, nil
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]
		switch kind {
		case unix.NLMSG_DONE:
			return list, true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				return list, true, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			}
			return list, true, nil
		case sockDiagByFamily:
			if c, ok := parseConnection(body); ok {
				list = append(list, c)
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return list, false, nil
}

func parseConnection(b []byte) (c connection, ok bool) {
	if len(b) < diagMessage || (b[1] != unix.SOCK_STREAM && b[1] != unix.SOCK_SEQPACKET) {
		return c, false
	}
	c.inode = binary.NativeEndian.Uint32(b[4:])
	for b = b[diagMessage:]; len(b) >= 4; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == diagPeer && size >= 8 {
			c.peer = binary.NativeEndian.Uint32(b[4:])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return c, c.inode != 0 && c.peer != 0
}

// inodeOf is the number in a link such as "socket:[123]".
func inodeOf(link string) string {
	return strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")
}
