package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Three probes within half a second and an answer within a second of the first:
// RFC 5227 would have it take 4 to 7 seconds, RFC 4862 one for each probe. It is
// still longer than the 0.8 seconds for which Linux may hold back the answer for
// an address that it answers for in place of another (neigh/*/proxy_delay). A
// host that sleeps, or is behind a bridge port that does not forward yet, may be
// missed.
const (
	probeCount    = 3
	probeInterval = 250 * time.Millisecond
	probeTime     = time.Second
	// probeStep bounds how long the end of the context may go unnoticed.
	probeStep = 100 * time.Millisecond
)

// ErrAddressTaken means that another host of the network has the address.
var ErrAddressTaken = errors.New("address is taken")

// TakenError says who has an address. It is an [ErrAddressTaken].
type TakenError struct {
	Address netip.Addr
	// MAC is the hardware address that answered.
	MAC net.HardwareAddr
	// Link of the host behind which it is.
	Link string
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("%v: %s answers for %s on %s", ErrAddressTaken, e.MAC, e.Address, e.Link)
}

// Is makes a TakenError an ErrAddressTaken.
func (e *TakenError) Is(target error) bool { return target == ErrAddressTaken }

// Probe asks the networks where the addresses would live whether somebody has
// them already, and takes a second when nobody does. The addresses are ones of
// c. For a bridged interface the network is the one of its bridge, asked from
// the bridge with the bridge's hardware address: with the container's, switches
// would send to this host what is still for the container elsewhere. For a
// routed one it is every network of the host that the address is part of, and
// when there is none, or the link is down, nobody is asked; nor on [OwnBridge]
// before it is made.
//
// Neither the container's own answer nor the host's is a conflict, but an
// address that the host has on that link is. A container that is being moved
// here answers from where it still is: then its hardware address is the one of
// c if it is bridged, and that of its host if it is routed.
//
// Errors: *TakenError, ErrConfig, ErrNoBridge.
func Probe(ctx context.Context, c Config, addrs []netip.Prefix) (err error) {
	defer wrapOp("probe addresses", "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(addrs) == 0 {
		return nil
	}
	s, err := openSocket()
	if err != nil {
		return err
	}
	segments, err := segmentsOf(s, c, addrs)
	err = errors.Join(err, s.close())
	if err != nil || len(segments) == 0 {
		return err
	}
	p := prober{own: ownMACs(c)}
	defer func() { err = errors.Join(err, p.close()) }()
	for _, s := range segments {
		if err := p.add(s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return p.run(ctx)
}

func ownMACs(c Config) map[string]bool {
	own := make(map[string]bool)
	for _, mac := range oursOf(c).mac {
		own[mac.String()] = true
	}
	return own
}

// prober asks on several links at once.
type prober struct {
	own   map[string]bool // hardware addresses of the container
	lines []line
}

// line is a socket on a segment, and the addresses of its IP version.
type line struct {
	packets
	segment segment
	ipv6    bool
	asked   map[netip.Addr]question
}

func (p *prober) add(s segment) error {
	for _, ipv6 := range []bool{false, true} {
		l := line{segment: s, ipv6: ipv6, asked: make(map[netip.Addr]question)}
		for _, q := range s.questions {
			if q.address.Is6() == ipv6 {
				l.asked[q.address] = q
			}
		}
		if len(l.asked) == 0 {
			continue
		}
		protocol := uint16(unix.ETH_P_ARP)
		if ipv6 {
			protocol = unix.ETH_P_IPV6
		}
		var err error
		if l.packets, err = openPackets(s.index, protocol); err != nil {
			return err
		}
		p.lines = append(p.lines, l)
		if !ipv6 {
			continue
		}
		for a := range l.asked { // to hear others who probe for the same address
			if err := l.join(multicastMAC(solicitedNode(a))); err != nil {
				return fmt.Errorf("join the group of %s: %w", a, err)
			}
		}
	}
	return nil
}

func (p *prober) close() error {
	var errs []error
	for _, l := range p.lines {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

func (p *prober) run(ctx context.Context) error {
	start := time.Now()
	for sent := 0; ; {
		passed := time.Since(start)
		if passed >= probeTime {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if sent < probeCount && passed >= time.Duration(sent)*probeInterval {
			if err := p.ask(); err != nil {
				return err
			}
			sent++
		}
		next := probeTime
		if sent < probeCount {
			next = time.Duration(sent) * probeInterval
		}
		if err := p.listen(min(probeStep, next-time.Since(start))); err != nil {
			return err
		}
	}
}

// ask sends a probe for each address. An ARP probe, which comes from 0.0.0.0,
// is answered only by who has the address; who answers in place of others, as
// hosts of routed containers do, wants a sender.
func (p *prober) ask() error {
	for _, l := range p.lines {
		for _, q := range l.asked {
			var err error
			switch {
			case l.ipv6:
				err = l.send(multicastMAC(solicitedNode(q.address)), solicitation(q.address))
			case q.sender.IsValid():
				err = errors.Join(
					l.send(broadcastMAC, arpFrame(l.segment.mac, anyIPv4, q.address)),
					l.send(broadcastMAC, arpFrame(l.segment.mac, q.sender, q.address)),
				)
			default:
				err = l.send(broadcastMAC, arpFrame(l.segment.mac, anyIPv4, q.address))
			}
			if err != nil {
				return fmt.Errorf("ask for %s on %s: %w", q.address, l.segment.name, err)
			}
		}
	}
	return nil
}

// listen waits for answers, and returns after the time or when it has read some.
func (p *prober) listen(limit time.Duration) error {
	fds := make([]unix.PollFd, len(p.lines))
	for i, l := range p.lines {
		fds[i] = unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN}
	}
	// Rounded up, so that it does not return before the time over and over.
	milliseconds := int((limit + time.Millisecond - 1) / time.Millisecond)
	if _, err := unix.Poll(fds, max(0, milliseconds)); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for answers: %w", err)
	}
	for i, l := range p.lines {
		if fds[i].Revents == 0 {
			continue
		}
		if err := p.hear(l); err != nil {
			return err
		}
	}
	return nil
}

// hearAtOnce bounds what is read before the time is looked at again: a neighbour
// could send faster than that can be read.
const hearAtOnce = 64

// hear reads what there is on a line.
func (p *prober) hear(l line) error {
	buf := make([]byte, 2048)
	for range hearAtOnce {
		frame, from, ok, err := l.receive(buf)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", l.segment.name, err)
		}
		if !ok {
			return nil
		}
		said, ok := readARP(frame)
		if l.ipv6 {
			said, ok = readND(frame, from)
		}
		if _, asked := l.asked[said.address]; !ok || !asked {
			continue
		}
		own := func(mac net.HardwareAddr) bool {
			return p.own[mac.String()] || mac.String() == l.segment.mac.String()
		}
		if own(said.mac) || own(from) {
			continue
		}
		return &TakenError{Address: said.address, MAC: append(net.HardwareAddr(nil), said.mac...), Link: l.segment.name}
	}
	return nil
}
