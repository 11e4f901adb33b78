package netns

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// vethNamed finds a link of ours; nil means that there is none.
func vethNamed(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link: %w", err)
	}
	if link.Type() != "veth" {
		return nil, fmt.Errorf("%w: it is a %s", ErrLinkName, link.Type())
	}
	return link, nil
}

// deleteLink removes the pair; an absent one is no error.
func deleteLink(h *netlink.Handle, name string) error {
	link, err := vethNamed(h, name)
	if err != nil || link == nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !isAbsent(err) {
		return fmt.Errorf("delete link: %w", err)
	}
	return nil
}

// Links returns the names of the host's links that belong to containers, in the
// order of their creation.
func Links(ctx context.Context) (names []string, err error) {
	defer wrapOp("list links", "", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := openRoute()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return linksOf(h)
}

func linksOf(h *netlink.Handle) ([]string, error) {
	links, err := listLinks(h)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range links {
		if l.Type() == "veth" && linkName.MatchString(l.Attrs().Name) {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// listLinks repeats a listing that the kernel calls inconsistent, because links
// came or went meanwhile (NLM_F_DUMP_INTR, netlink(7)).
func listLinks(h *netlink.Handle) ([]netlink.Link, error) {
	const tries = 10
	var links []netlink.Link
	var err error
	for range tries {
		links, err = h.LinkList()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}

// Reap deletes the links for which keep says no, and the NAT entries made for
// such links, and returns the names of the links it deleted. Blackhole routes
// name no owner: Leave removes them.
func Reap(ctx context.Context, keep func(name string) bool) (deleted []string, err error) {
	defer wrapOp("reap links", "", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := openRoute()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	names, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if keep(name) {
			continue
		}
		if err := deleteLink(h, name); err != nil {
			return deleted, fmt.Errorf("%s: %w", name, err)
		}
		deleted = append(deleted, name)
	}
	return deleted, reapNAT(keep)
}
