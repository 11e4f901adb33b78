package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shaperName is the device through which what a host link receives is shaped.
func shaperName(link string) string { return shaperPrefix + strings.TrimPrefix(link, "ct") }

// shapeChain comes behind the chain that pins addresses.
func shapeChain(link string) *nftables.Chain {
	c := guardChain(link, shapeSuffix, nftables.ChainHookIngress)
	c.Priority = nftables.ChainPriorityRef(*nftables.ChainPriorityFilter + 1)
	return c
}

func shapeEgress(h *netlink.Handle, link netlink.Link, bits int64) error {
	device, err := shaperDevice(h, shaperName(link.Attrs().Name), link.Attrs().MTU)
	if err != nil {
		return err
	}
	if err := shape(h, device, link.Attrs().MTU, bits); err != nil {
		return err
	}
	if device.Attrs().Flags&unix.IFF_UP == 0 {
		if err := h.LinkSetUp(device); err != nil {
			return fmt.Errorf("set %s up: %w", device.Attrs().Name, err)
		}
	}
	return redirect(link.Attrs().Name, device.Attrs().Index)
}

// shaperDevice finds the device or makes it.
func shaperDevice(h *netlink.Handle, name string, mtu int) (netlink.Link, error) {
	device, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, mtu
		if err := h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, unsupported(fmt.Errorf("add link %s: %w", name, err), "ifb", "IFB", "limits of what a container sends")
		}
		device, err = h.LinkByName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	if err := checkShaper(device); err != nil || device.Attrs().Flags&unix.IFF_UP != 0 {
		return device, err
	}
	// Else the kernel would give it an address and send router solicitations.
	if err := optionalSysctlStep("1", "ipv6", "conf", name, "disable_ipv6").do(); err != nil {
		return nil, fmt.Errorf("switch IPv6 off on %s: %w", name, err)
	}
	return device, nil
}

func checkShaper(device netlink.Link) error {
	if device.Type() != "ifb" {
		return fmt.Errorf("%w: %s is a %s and no ifb", ErrLinkName, device.Attrs().Name, device.Type())
	}
	return nil
}

// redirect sends what comes in on a link to the device with an index.
func redirect(link string, index int) (err error) {
	conn, err := openPolicy()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	done, exists, err := conn.redirects(link, index)
	if err != nil || done {
		return err
	}
	chain := shapeChain(link)
	if !exists {
		conn.AddTable(guardTable)
		conn.AddChain(chain)
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("add chain %s: %w", chain.Name, err)
		}
	}
	if err := conn.replaceByForward(chain, deviceRegister(index), redirectNote(link)); err != nil {
		return unsupported(fmt.Errorf("redirect %s: %w", link, err), "nft_fwd_netdev", "NFT_FWD_NETDEV", "limits of what a container sends")
	}
	return nil
}

func redirectNote(link string) []byte { return comment(tagOfLink(link) + " rate") }

func deviceRegister(index int) *expr.Immediate {
	return &expr.Immediate{Register: register(0), Data: nativeUint32(uint32(index))}
}

// redirects says whether the chain of a link exists, and leads to the device.
func (c *filterConn) redirects(link string, index int) (yes, exists bool, err error) {
	chain := shapeChain(link)
	rules, err := c.rules(chain)
	if err != nil || len(rules) != 1 || !bytes.Equal(rules[0].comment, redirectNote(link)) {
		return false, len(rules) > 0, err
	}
	exprs := rules[0].expressions()
	if len(exprs) != 2 || text(attribute(exprs[1], unix.NFTA_EXPR_NAME)) != "fwd" {
		return false, true, nil
	}
	yes, err = sameExpression(byte(guardTable.Family), deviceRegister(index), exprs[0])
	return yes, true, err
}

func tagOfLink(link string) string { return link[:min(len(link), len("ct")+12)] }

// unshapeEgress first lets packets pass by the device, then the ones that wait in
// it, and then removes it.
func unshapeEgress(h *netlink.Handle, link string) (err error) {
	conn, err := openPolicy()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	chain := shapeChain(link)
	names, err := conn.names(unix.NFT_MSG_GETCHAIN, guardTable, chain.Name)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		conn.DelChain(chain)
		if err := conn.Flush(); err != nil && !isAbsent(err) {
			return fmt.Errorf("delete chain %s: %w", chain.Name, err)
		}
	}
	return removeShaperOf(h, link)
}

func removeShaper(h *netlink.Handle, device netlink.Link) error {
	if err := checkShaper(device); err != nil {
		return err
	}
	have, err := shaperOf(h, device)
	if err != nil {
		return err
	}
	if have != nil {
		if err := shape(h, device, device.Attrs().MTU, MaxRateBits); err != nil {
			return err
		}
		if err := await(func() (bool, error) {
			q, err := shaperOf(h, device)
			return q == nil || q.Statistics == nil || q.Statistics.Queue == nil || q.Statistics.Queue.Qlen == 0, err
		}); err != nil {
			return err
		}
	}
	if err := h.LinkDel(device); err != nil && !isAbsent(err) {
		return fmt.Errorf("delete link %s: %w", device.Attrs().Name, err)
	}
	return nil
}

// removeShapers removes the devices of the containers whose tag matches, with
// orphans also those whose links are gone, and returns the tags of the former.
func removeShapers(ctx context.Context, match func(tag string) bool, orphans bool) (removed []string, err error) {
	h, err := openRoute()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := listLinks(h)
	if err != nil {
		return nil, err
	}
	present := make(map[string]bool, len(links))
	for _, l := range links {
		present[l.Attrs().Name] = true
	}
	for _, l := range links {
		name := l.Attrs().Name
		id, ours := strings.CutPrefix(name, shaperPrefix)
		link := "ct" + id
		tag := tagOfLink(link)
		if !ours || l.Type() != "ifb" || !tagPattern.MatchString(tag) || !match(tag) && (!orphans || present[link]) {
			continue
		}
		if err := run(ctx, []step{{"delete " + name, func() error { return removeShaper(h, l) }}}); err != nil {
			return removed, err
		}
		if match(tag) {
			removed = append(removed, tag)
		}
	}
	return removed, nil
}

// removeShapersOf removes the devices of links that have no limit any more.
func removeShapersOf(links []string) error {
	if len(links) == 0 {
		return nil
	}
	h, err := openRoute()
	if err != nil {
		return err
	}
	defer h.Close()
	for _, link := range links {
		if err := removeShaperOf(h, link); err != nil {
			return err
		}
	}
	return nil
}

func removeShaperOf(h *netlink.Handle, link string) error {
	device, err := h.LinkByName(shaperName(link))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", shaperName(link), err)
	}
	return removeShaper(h, device)
}
