package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel finishes some changes of links and addresses in work queues, after
// it has acknowledged them. Each wait takes about 0.2 ms on an idle machine.
// Patience running out is no error: then a packet may be late by a second, and
// nothing else is wrong.
const (
	patience     = 100 * time.Millisecond
	pollInterval = 50 * time.Microsecond
)

func await(ready func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		ok, err := ready()
		if ok || err != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pollInterval)
	}
}

// awaitLocal waits until packets to an address of the link index are taken in.
// An IPv6 address can be bound at once, but its local route comes from the work
// queue of duplicate address detection (net/ipv6/addrconf.c), detection or not.
func (s *socket) awaitLocal(a netip.Addr, index int) error {
	return await(func() (bool, error) {
		r, err := s.routeTo(a, index)
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look up route for %s: %w", a, err)
		}
		return r.typ == unix.RTN_LOCAL, nil
	})
}

// awaitPeer waits until the container's end can send. When the host's end comes
// up, the kernel gives the other one its transmit queue from a work queue
// (net/core/link_watch.c); what is sent before is dropped, and TCP sends a lost
// handshake again only after a second.
func (s *socket) awaitPeer(l linkInfo) error {
	return await(func() (bool, error) { return s.peerReady(l) })
}

// peerReady asks for the state of the other end without entering its namespace
// (IFLA_TARGET_NETNSID, Linux 4.20).
func (s *socket) peerReady(l linkInfo) (bool, error) {
	if l.peerNS < 0 || l.peer == 0 {
		return true, nil // both ends in one namespace: no container's
	}
	peer, found, err := s.link(linkBody(unix.AF_UNSPEC, l.peer, 0, 0).u32(unix.IFLA_TARGET_NETNSID, l.peerNS))
	if err != nil {
		return false, fmt.Errorf("ask for the container's end: %w", err)
	}
	return found && peer.ready, nil
}
