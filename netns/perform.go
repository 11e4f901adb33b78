package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"golang.org/x/sys/unix"
)

// flags of requests that make something.
const (
	create  = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
)

// perform does one change. What is to be removed may be gone already; the kernel
// takes some things along with others.
func (k *kernel) perform(c change) error {
	err := k.performOf(c)
	if c.op == opRemove && isAbsent(err) {
		return nil
	}
	return err
}

func (k *kernel) performOf(c change) error {
	if c.op == opRemove && c.kind != kindProxy {
		if _, found := k.linkOf(c.item); c.link != "" && !found {
			return nil // it went with its link
		}
	}
	switch c.kind {
	case kindSetting:
		return k.performSetting(c)
	case kindBridge:
		return k.performBridge(c)
	case kindPair:
		return k.performPair(c)
	case kindEnd:
		return k.performEnd(c)
	case kindAddress:
		return k.performAddress(c)
	case kindNeighbour:
		return k.performNeighbour(c)
	case kindRoute:
		if c.inside {
			return k.performInsideRoute(c)
		}
		return k.performHostRoute(c)
	case kindRule:
		return k.performRule(c)
	}
	return k.performProxy(c)
}

func (k *kernel) performSetting(c change) error {
	switch {
	case c.op == opRemove:
		return nil // what was before a new link's settings went with it
	case c.link == "" && !c.inside:
		return k.performHostWide(c)
	}
	path := k.setting(c.item)
	err := k.at(c.item, func() error {
		_, err := setSysctl(path, c.to.text)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && c.optional() {
		return nil
	}
	return err
}

// performHostWide is not undone: others may rely on it meanwhile.
func (k *kernel) performHostWide(c change) error {
	path := k.setting(c.item)
	if c.name == forwarding6 {
		if err := k.keepAdvertisements(); err != nil {
			return err
		}
	}
	err := setHostWide(k.c.log(), c.to.text, path)
	if errors.Is(err, fs.ErrNotExist) && c.optional() {
		return nil
	}
	return err
}

func (k *kernel) performPair(c change) error {
	switch c.op {
	case opAdd:
		return k.addPair(c)
	case opRemove:
		l := k.pairs[c.link]
		if err := k.host.deleteLink(l.index); err != nil {
			return err
		}
		delete(k.pairs, c.link)
		delete(k.ends, c.link)
		return nil
	}
	return k.alterPair(c)
}

// addPair makes both ends in one message, so that the container's end never
// shows up in the host's namespace, under a name that might be taken there.
func (k *kernel) addPair(c change) error {
	const peer = 1 // VETH_INFO_PEER
	mac, err := net.ParseMAC(c.to.mac)
	if err != nil {
		return err
	}
	endMAC, err := net.ParseMAC(c.end.mac)
	if err != nil {
		return err
	}
	end := linkBody(unix.AF_UNSPEC, 0, 0, 0).str(unix.IFLA_IFNAME, c.end.name).attr(unix.IFLA_ADDRESS, endMAC).
		u32(unix.IFLA_MTU, c.end.mtu).u32(unix.IFLA_NET_NS_FD, int(k.ns.Fd()))
	info := message(nil).str(unix.IFLA_INFO_KIND, "veth").nest(unix.IFLA_INFO_DATA, message(nil).nest(peer, end))
	body := linkBody(unix.AF_UNSPEC, 0, 0, 0).str(unix.IFLA_IFNAME, c.link).attr(unix.IFLA_ADDRESS, mac).
		u32(unix.IFLA_MTU, c.to.mtu).nest(unix.IFLA_LINKINFO, info)
	if err := k.host.ask(unix.RTM_NEWLINK, create, body, nil); err != nil {
		return err
	}
	l, found, err := k.host.linkNamed(c.link)
	if err != nil {
		byName := linkBody(unix.AF_UNSPEC, 0, 0, 0).str(unix.IFLA_IFNAME, c.link)
		return errors.Join(err, k.host.ask(unix.RTM_DELLINK, 0, byName, nil))
	}
	if !found {
		return ErrNoLink // the container's namespace has ended with it
	}
	k.pairs[c.link] = l
	k.ends[c.link] = linkInfo{index: l.peer, name: c.end.name}
	return nil
}

// alterPair changes the host's end in one message, but for the bridge's port.
func (k *kernel) alterPair(c change) error {
	l, ok := k.pairs[c.link]
	if !ok {
		return ErrNoLink
	}
	body, err := c.alterLink(l.index)
	if err != nil {
		return err
	}
	if c.from.bridge != c.to.bridge {
		master := 0
		if c.to.bridge != "" {
			m, err := k.hostLinkNamed(c.to.bridge)
			if err != nil {
				return err
			}
			master = m.index
		}
		body = body.u32(unix.IFLA_MASTER, master)
	}
	open, shut := c.from, c.to
	open.closed, shut.closed = false, false
	if open != shut {
		if err := k.host.ask(unix.RTM_NEWLINK, 0, body, nil); err != nil {
			return err
		}
	}
	if c.from.closed == c.to.closed {
		return nil
	}
	if err := k.setPort(l.index, c.to.closed); err != nil {
		shut.closed, open.closed = c.from.closed, c.from.closed
		return errors.Join(err, k.alterPair(change{op: opAlter, item: c.item, from: shut, to: open}))
	}
	return nil
}

// alterLink begins the message that changes what both ends of a pair have.
func (c change) alterLink(index int) (message, error) {
	body := linkBody(unix.AF_UNSPEC, index, upFlag(c.to.up), unix.IFF_UP)
	if c.from.mac != c.to.mac {
		mac, err := net.ParseMAC(c.to.mac)
		if err != nil {
			return nil, err
		}
		body = body.attr(unix.IFLA_ADDRESS, mac)
	}
	if c.from.mtu != c.to.mtu {
		body = body.u32(unix.IFLA_MTU, c.to.mtu)
	}
	return body, nil
}

// setPort opens or closes a bridge's port. That takes effect at once, where taking
// the link down would wait for packets that are on their way.
func (k *kernel) setPort(index int, closed bool) error {
	state := byte(portForwards)
	if closed {
		state = portDisabled
	}
	body := linkBody(unix.AF_BRIDGE, index, 0, 0).
		nest(unix.IFLA_PROTINFO, message(nil).u8(unix.IFLA_BRPORT_STATE, state))
	err := k.host.ask(unix.RTM_SETLINK, 0, body, nil)
	if errors.Is(err, unix.EBUSY) && closed {
		// The spanning tree protocol decides about this bridge's ports.
		err = k.host.ask(unix.RTM_NEWLINK, 0, linkBody(unix.AF_UNSPEC, index, 0, unix.IFF_UP), nil)
	}
	return err
}

func upFlag(up bool) uint32 {
	if up {
		return unix.IFF_UP
	}
	return 0
}

func (k *kernel) performEnd(c change) error {
	l, ok := k.ends[c.link]
	if !ok || c.op == opRemove {
		return nil
	}
	body, err := c.alterLink(l.index)
	if err != nil {
		return err
	}
	if c.from.name != c.to.name {
		body = body.str(unix.IFLA_IFNAME, c.to.name)
	}
	err = k.inside.ask(unix.RTM_NEWLINK, 0, body, nil)
	if errors.Is(err, unix.EBUSY) && c.from.name != c.to.name {
		return fmt.Errorf("%w: kernels before 6.2 rename no link that is up: stop the container first", err)
	}
	if err != nil {
		return err
	}
	l.name = c.to.name
	k.ends[c.link] = l
	return nil
}

func (k *kernel) performBridge(c change) error {
	if c.op == opRemove {
		return nil // Forget removes it, when it has no port
	}
	if c.op == opAdd {
		mac, err := net.ParseMAC(c.to.mac)
		if err != nil {
			return err
		}
		body := linkBody(unix.AF_UNSPEC, 0, unix.IFF_UP, unix.IFF_UP).str(unix.IFLA_IFNAME, c.link).
			attr(unix.IFLA_ADDRESS, mac).
			nest(unix.IFLA_LINKINFO, message(nil).str(unix.IFLA_INFO_KIND, "bridge"))
		if err := k.host.ask(unix.RTM_NEWLINK, create, body, nil); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	l, err := k.hostLinkNamed(c.link)
	if err != nil {
		return err
	}
	k.pairs[c.link] = l
	return k.host.ask(unix.RTM_NEWLINK, 0, linkBody(unix.AF_UNSPEC, l.index, upFlag(c.to.up), unix.IFF_UP), nil)
}
