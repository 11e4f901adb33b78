package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var wrongMAC = net.HardwareAddr{2, 0, 0, 0xba, 0xd0, 0}

// believe has the neighbours of a link think that addresses are at wrongMAC.
func (s space) believe(t testing.TB, name string, addresses ...string) {
	t.Helper()
	s.within(t, func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		for _, a := range addresses {
			ip := netip.MustParseAddr(a)
			err := h.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, Family: int(familyOf(ip)), State: netlink.NUD_STALE, IP: ip.AsSlice(), HardwareAddr: wrongMAC,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// believes returns where an address is thought to be.
func (s space) believes(t testing.TB, name, address string) (mac string) {
	t.Helper()
	ip := netip.MustParseAddr(address)
	s.within(t, func(h *netlink.Handle) error {
		link, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		known, err := h.NeighList(link.Attrs().Index, int(familyOf(ip)))
		for _, n := range known {
			if n.IP.Equal(ip.AsSlice()) {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	return mac
}

func TestAnnouncementCorrectsTheNeighboursOnTheBridge(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0")
	c := bridgedConfig("tbr0", "10.50.0.7/24", "fd50::7/64")
	c.Interfaces[0].NoFilter = true // for what the administrator adds
	ct := newSpace(t, true)
	plug(t, ct, c)
	ct.within(t, func(h *netlink.Handle) error {
		eth, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return addAddress(h, eth, netip.MustParsePrefix("10.50.0.8/24"))
	})
	watcher := onBridge(t, h, bridge, "port1", net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, "10.50.0.9/24", "fd50::9/64")
	all := []string{"10.50.0.7", "10.50.0.8", "fd50::7"}
	watcher.believe(t, "eth0", all...)
	for _, a := range all {
		eventually(t, a+" is known", func() bool {
			// On a busy machine the link may be late, and lose a frame.
			must(t, Announce(ctx, ct.pid, c))
			return watcher.believes(t, "eth0", a) == macs(c, 0)
		})
	}
}

func TestAnnouncementOfRoutedAddressesIsTheHosts(t *testing.T) {
	h := requireHost(t)
	out := outside(t, h)
	waitUp(t, hostSpace(t), "up0")
	waitUp(t, out, "up1")
	up0, err := h.LinkByName("up0")
	must(t, err)
	c := innerConfig()
	c.Interfaces[0].Addresses = prefixes("198.51.100.66/32", "2001:db8:1::66/128", "198.51.100.67/32")
	for _, a := range []string{"198.51.100.66", "2001:db8:1::66"} {
		ip := netip.MustParseAddr(a)
		must(t, h.NeighAdd(&netlink.Neigh{LinkIndex: up0.Attrs().Index, Family: int(familyOf(ip)), Flags: netlink.NTF_PROXY, IP: ip.AsSlice()}))
	}
	out.believe(t, "up1", "198.51.100.66", "198.51.100.67", "2001:db8:1::66")
	must(t, Announce(ctx, 0, c))
	for _, a := range []string{"198.51.100.66", "2001:db8:1::66"} {
		eventually(t, a+" is known", func() bool { return out.believes(t, "up1", a) == up0.Attrs().HardwareAddr.String() })
	}
	if got := out.believes(t, "up1", "198.51.100.67"); got != wrongMAC.String() {
		t.Errorf("an address that the host does not answer for was announced as %s", got)
	}
}

func TestThreeAnnouncementsAreMade(t *testing.T) {
	h := requireHost(t)
	bridge := testBridge(t, h, "tbr0")
	c := bridgedConfig("tbr0", "10.50.0.7/24")
	mac, _ := MACFor(c.UID, 0)
	ct := onBridge(t, h, bridge, "port0", mac, "10.50.0.7/24")
	listener, err := openPackets(bridge.Attrs().Index, unix.ETH_P_ARP)
	must(t, err)
	defer func() { must(t, listener.close()) }()
	must(t, Announce(ctx, ct.pid, c))
	must(t, AnnounceAgain(ctx, ct.pid, c))
	count := 0
	eventually(t, "three announcements", func() bool {
		for {
			frame, _, ok, err := listener.receive(make([]byte, 2048))
			must(t, err)
			if !ok {
				return count == announceCount
			}
			if said, ok := readARP(frame); ok && said.address == netip.MustParseAddr("10.50.0.7") && said.mac.String() == mac.String() {
				count++
			}
		}
	})
}

func TestRepeatedAnnouncementEndsWithItsContext(t *testing.T) {
	requireHost(t)
	limit, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := AnnounceAgain(limit, 0, innerConfig()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAnnouncementForAnEndedProcessIsRefused(t *testing.T) {
	requireHost(t)
	if err := Announce(ctx, 1<<22, bridgedConfig("tbr0", "10.50.0.7/24")); !errors.Is(err, ErrNoProcess) {
		t.Errorf("got %v", err)
	}
}
