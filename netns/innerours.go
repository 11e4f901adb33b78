package netns

import (
	"bytes"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// ours tells what the host set up inside a container from what the container's
// administrator did, for one configuration.
type ours struct {
	// interfaces by their names inside.
	interfaces map[string]Interface
	// mac is an interface's hardware address as the host gave it.
	mac map[string]net.HardwareAddr
	// mtu of an interface as the host gave it, in bytes; 0 is not known.
	mtu map[string]uint32
	// sysctls are the values that the host sets, by paths below /proc/sys/net.
	sysctls map[string]string
}

func oursOf(c Config) ours {
	o := ours{
		make(map[string]Interface), make(map[string]net.HardwareAddr), make(map[string]uint32), make(map[string]string),
	}
	name := make(map[string]string) // of the container's end, by the host's
	for _, i := range c.Interfaces {
		o.interfaces[i.Name] = i
		name[c.hostLink(i.Index)] = i.Name
		o.mtu[i.Name] = uint32(max(0, i.MTU))
		o.mac[i.Name], _ = c.macs(i)
	}
	for _, t := range wanted(c, Joined, true, facts{}) {
		if t.inside && t.kind == kindSetting {
			o.sysctls[strings.Replace(t.item.name, "*", name[t.link], 1)] = t.text
		}
	}
	return o
}

// address: what carries our mark, is in the configuration, or is made by the
// kernel: 127.0.0.1 and ::1 on lo, and the link-local address that follows from
// the hardware address of a link.
func (o ours) address(a InnerAddress, mac net.HardwareAddr) bool {
	addr := a.Address.Addr()
	switch {
	case a.Protocol == RouteProtocol, addr.Is6() && addr.IsLoopback():
		return true
	case a.Link == "lo" && a.Address == netip.MustParsePrefix("127.0.0.1/8"):
		return true
	case addr.Is6() && addr.IsLinkLocalUnicast():
		// 1 to 3: addresses that the kernel made for itself, by advertisements,
		// or of the link (linux/if_addr.h, since Linux 5.18).
		return a.Protocol == ifaprotKernelLL || len(mac) == 6 && addr == linkLocal(mac)
	}
	for _, p := range o.interfaces[a.Link].Addresses {
		if p.Addr() == addr {
			return true
		}
	}
	return false
}

const ifaprotKernelLL = 3 // IFAPROT_KERNEL_LL of linux/if_addr.h

// route: our mark, or one that the kernel makes by itself, for an address, by a
// router's advertisement or by a redirect; and the default route of a routed
// interface, whoever made it.
func (o ours) route(protocol uint8, links []string, gateway netip.Addr, bits byte) bool {
	switch protocol {
	case RouteProtocol, unix.RTPROT_KERNEL, unix.RTPROT_RA, unix.RTPROT_REDIRECT:
		return true
	}
	if bits != 0 || len(links) != 1 || gateway != gateway4 && gateway != gateway6 {
		return false
	}
	i, ok := o.interfaces[links[0]]
	return ok && i.Bridge == ""
}

// rule: the three that every namespace begins with are the kernel's.
func (o ours) rule(protocol uint32) bool {
	return protocol == RouteProtocol || protocol == unix.RTPROT_KERNEL
}

// neighbour: our mark, or the gateway of a routed interface.
func (o ours) neighbour(n InnerNeighbour, protocol []byte) bool {
	if len(protocol) == 1 && protocol[0] == RouteProtocol {
		return true
	}
	i, ok := o.interfaces[n.Link]
	return ok && i.Bridge == "" && !n.Proxy && (n.Address == gateway4 || n.Address == gateway6)
}

// link takes away what the host gave a link, or what it has by itself.
func (o ours) link(l InnerLink) InnerLink {
	usual := uint32(unix.IFF_UP | unix.IFF_MULTICAST)
	mtu, mac := o.mtu[l.Name], o.mac[l.Name]
	if l.Name == "lo" {
		usual, mtu, mac = unix.IFF_UP, loopbackMTU, make(net.HardwareAddr, 6)
	}
	if bytes.Equal(l.MAC, mac) {
		l.MAC = nil
	}
	if mtu == 0 || l.MTU == mtu {
		l.MTU = 0
	}
	if l.TxQueue != nil && *l.TxQueue == defaultTxQueue {
		l.TxQueue = nil
	}
	if l.Flags != nil && *l.Flags == usual {
		l.Flags = nil
	}
	return l
}

const (
	loopbackMTU    = 65536 // drivers/net/loopback.c
	defaultTxQueue = 1000  // DEFAULT_TX_QUEUE_LEN of net/core/dev.c
)
