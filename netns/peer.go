package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
func awaitLocal(h *netlink.Handle, a netip.Addr, index int) error {
	return await(func() (bool, error) {
		routes, err := h.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true, OifIndex: index})
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look up route for %s: %w", a, err)
		}
		return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
	})
}

// awaitPeer waits until the container's end can send. When the host's end comes
// up, the kernel gives the other one its transmit queue from a work queue
// (net/core/link_watch.c); what is sent before is dropped, and TCP sends a lost
// handshake again only after a second.
func awaitPeer(link netlink.Link) error {
	return await(func() (bool, error) { return peerReady(link) })
}

// peerReady asks for the state of the other end without entering its namespace
// (IFLA_TARGET_NETNSID, Linux 4.20).
func peerReady(link netlink.Link) (bool, error) {
	attrs := link.Attrs()
	if attrs.NetNsID < 0 || attrs.ParentIndex == 0 {
		return true, nil // both ends in one namespace: not a pair of Attach
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(attrs.ParentIndex)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(attrs.NetNsID))))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return false, fmt.Errorf("ask for the container's end: %w", err)
	}
	if len(answers) == 0 {
		return false, nil
	}
	peer, err := netlink.LinkDeserialize(nil, answers[0])
	if err != nil {
		return false, fmt.Errorf("read the container's end: %w", err)
	}
	return peer.Attrs().OperState == netlink.OperUp, nil
}
