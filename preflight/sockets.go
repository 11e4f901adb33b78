package preflight

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// savedProtocols are the kernel's names of those that CRIU saves (sockets.c,
// sk-inet.c): struct proto.name of each family.
var savedProtocols = map[string]bool{
	"TCP": true, "TCPv6": true, "UDP": true, "UDPv6": true, "UDP-Lite": true, "UDPLITEv6": true, "RAW": true, "RAWv6": true,
	"UNIX": true, "UNIX-STREAM": true, "UNIX-DGRAM": true, "NETLINK": true, "PACKET": true,
}

// socketAttribute is an extended attribute of every socket, which names its
// protocol without disturbing anyone (net/socket.c).
const socketAttribute = "system.sockprotoname"

// socket looks at a socket by its protocol.
func (x *examination) socket(r *reader, p *process, fd int, link string) {
	protocol, ok := x.protocol(p, fd, link)
	if !ok {
		return
	}
	inode := inodeOf(link)
	switch {
	case protocol == "MPTCP" || protocol == "MPTCPv6":
		x.add(r, p, fd, "mptcp", "mptcp", "MPTCP socket", nil)
	case protocol == "PING" || protocol == "PINGv6":
		x.add(r, p, fd, "ping", "ping", "socket of a ping", nil)
	case !savedProtocols[protocol]:
		x.add(r, p, fd, codeOf(strings.TrimPrefix(protocol, "AF_")), "socket", printable(protocol)+" socket", nil)
	case protocol == "NETLINK" && x.unread[inode]:
		x.doubtful(x.finding(r, p, fd, "netlink-unread", "netlink-unread", "netlink socket with unread messages", nil),
			func(*reader) bool { return x.unread[inode] })
	case strings.HasPrefix(protocol, "UNIX"):
		if n, _ := fdNumber(r, p, fd, "scm_fds"); n > 0 {
			x.doubtful(x.finding(r, p, fd, "queued-descriptors", "queued-descriptors", "Unix socket with descriptors that nobody has received", nil),
				func(r *reader) bool { n, _ := fdNumber(r, p, fd, "scm_fds"); return n > 0 })
		}
	}
}

// protocol is the name of a socket's; ok is false when it is gone.
func (x *examination) protocol(p *process, fd int, link string) (name string, ok bool) {
	x.mu.Lock()
	x.sockets++
	h := x.holders[link]
	x.mu.Unlock()
	if h != nil {
		return h.protocol, true
	}
	var buf [64]byte
	path := p.path + "/fd/" + strconv.Itoa(fd)
	n, err := unix.Getxattr(path, socketAttribute, buf[:])
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Getxattr(path, socketAttribute, buf[:])
	}
	if err != nil {
		return "", false
	}
	name = strings.TrimRight(string(buf[:n]), "\x00")
	x.mu.Lock()
	defer x.mu.Unlock()
	x.holders[link] = &holder{p: p, fd: fd, protocol: name}
	return name, true
}

// readNetlink finds the netlink sockets that have something to read.
func (x *examination) readNetlink(r *reader) error {
	b, err := r.read(x.root.path+"/net/netlink", mostNetlink)
	if vanished(err) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	x.unread = parseNetlink(string(b))
	return nil
}

// parseNetlink reads /proc/net/netlink: the fifth column is what waits to be
// read, the last the inode.
func parseNetlink(table string) map[string]bool {
	unread := map[string]bool{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		if n, err := strconv.ParseInt(f[4], 10, 64); err == nil && n > 0 {
			unread[f[9]] = true
		}
	}
	return unread
}
