package netns

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TryVeth makes a veth pair in a network namespace that is gone afterwards.
func TryVeth() error {
	return inScratch(func() (err error) {
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
	return inScratch(func() (err error) {
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

// inScratch runs do on a thread with a new network namespace. Both end with it.
func inScratch(do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The first thread cannot end, and /proc/self shows its namespaces.
			// It is held while another one does the work.
			defer runtime.UnlockOSThread()
			result <- inScratch(do)
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread() // nothing has changed
			result <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		result <- do() // and the thread, still locked, ends with the goroutine
	}()
	return <-result
}
