package netns

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openRoute opens a route socket in the namespace of the calling thread, for what
// the library does better than a [socket].
func openRoute() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	if err := h.SetSocketTimeout(answerTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	return h, nil
}

// vethNamed finds a link of ours; nil means that there is none.
func vethNamed(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
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

// kernel is the way to both namespaces.
type kernel struct {
	host   *socket
	ns     *os.File // the container's namespace; nil when only the host's counts
	inside *socket  // nil without ns
	// id is what the host's namespace calls the container's; -1 when no link
	// leads there.
	id int
	// pairs and ends are the links of the two sides, by the host's link.
	pairs map[string]linkInfo
	ends  map[string]linkInfo
	c     Config
}

func openKernel(ctx context.Context, c Config) (*kernel, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	s.fault, _ = ctx.Value(callFaultKey{}).(func() error)
	return &kernel{host: s, id: -1, c: c, pairs: map[string]linkInfo{}, ends: map[string]linkInfo{}}, nil
}

// enter opens the way into the container's namespace.
func (k *kernel) enter(pid int) (err error) {
	if k.ns, err = openOf(pid); err != nil {
		return err
	}
	if k.id, err = k.host.namespaceID(int(k.ns.Fd())); err != nil {
		return err
	}
	err = enter(k.ns, func() (err error) {
		k.inside, err = openSocket()
		return err
	})
	if err == nil {
		k.inside.fault = k.host.fault
	}
	return err
}

// closeWith closes the ways, and adds what goes wrong with that to err.
func (k *kernel) closeWith(err error) error {
	err = errors.Join(err, k.host.close(), k.inside.close())
	if k.ns != nil {
		err = errors.Join(err, k.ns.Close())
	}
	return err
}

// side is the socket of the namespace that a thing is in, with its link's index.
func (k *kernel) side(i item) (s *socket, index int, err error) {
	s, links := k.host, k.pairs
	if i.inside {
		s, links = k.inside, k.ends
	}
	l, ok := links[i.link]
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s", ErrNoLink, i.link)
	}
	return s, l.index, nil
}

// setting is the path of a setting, with the name that its link has now.
func (k *kernel) setting(i item) string {
	name := i.link
	if i.inside {
		name = k.ends[i.link].name
	}
	return sysctlOf(i.name, name)
}

// at runs do on a thread in the namespace that a thing is in.
func (k *kernel) at(i item, do func() error) error {
	if !i.inside {
		return do()
	}
	return enter(k.ns, do)
}
