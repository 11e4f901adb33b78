package netns

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// TryVeth makes a veth pair in a network namespace that is gone afterwards.
func TryVeth() error {
	return inNew(func() (err error) {
		h, err := openRoute()
		if err != nil {
			return err
		}
		defer h.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe"
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
			return fmt.Errorf("add veth: %w", err)
		}
		return nil
	})
}

// TryFilter makes, in a network namespace that is gone afterwards, the packet
// filter that masquerades containers, the hooks that pin what their links send,
// and a filter that drops what comes in, which is how CRIU holds connections.
func TryFilter() error {
	return inNew(func() (err error) {
		conn, err := openFilter(0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.CloseLasting()) }()
		if err := queueTable(conn); err != nil {
			return err
		}
		queueGuardProbe(conn)
		lock := conn.AddTable(&nftables.Table{Name: "probe", Family: nftables.TableFamilyINet})
		drop := nftables.ChainPolicyDrop
		conn.AddChain(&nftables.Chain{
			Name: "input", Table: lock, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &drop,
		})
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("add tables: %w", err)
		}
		return nil
	})
}
