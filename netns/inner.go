package netns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

const (
	// innerVersion is the version of the format of Inner.
	innerVersion = 1
	// maxInnerBytes bounds an Inner as JSON, and each listing it is made from.
	maxInnerBytes = 16 << 20
	// maxInnerJSON leaves room for what somebody else's indentation takes.
	maxInnerJSON = 2 * maxInnerBytes
	// maxInnerItems bounds each of its lists but the packet filter's messages.
	maxInnerItems = 1 << 16
)

var (
	// ErrInnerSize means that more is configured inside a container's network
	// namespace than is recorded, or that reading it takes too long.
	ErrInnerSize = errors.New("more is configured in the network namespace than the 16 MiB that are recorded")
	// ErrInner refuses a record that cannot have been made by Capture.
	ErrInner = errors.New("invalid record of a network namespace")
)

// Inner is what the container's own administrator configured inside its network
// namespace, beyond what the host set up. The namespace is in no process image,
// so that this is recorded with one, see [Capture] and [Inner.Reinstate].
//
// Recorded are addresses, routes of all tables, policy rules, permanent
// neighbours and proxied ones, settings of lo and of the container's
// interfaces, other links of the kinds bridge, dummy, ifb, macvlan, veth and
// vlan, the packet filter of nftables, and the values under /proc/sys/net that
// differ from those of a new namespace.
//
// Not recorded is what comes by itself: link-local addresses, routes that the
// kernel makes for addresses, that routers advertise or redirect to, entries of
// connection tracking. Neither is what was taken away: of a default route that
// was deleted nothing is left to record. What cannot be brought back is in
// Missing.
//
// The zero value says that nothing was configured, and is {} as JSON.
type Inner struct {
	// Version of the format, 0 only when there is nothing.
	Version    int              `json:"version,omitempty"`
	Links      []InnerLink      `json:"links,omitempty"`
	Addresses  []InnerAddress   `json:"addresses,omitempty"`
	Neighbours []InnerNeighbour `json:"neighbours,omitempty"`
	Routes     []InnerRoute     `json:"routes,omitempty"`
	Rules      []InnerRule      `json:"rules,omitempty"`
	Filter     []InnerFilter    `json:"filter,omitempty"`
	// Sysctls have paths below /proc/sys/net as keys.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Missing says in words what is there and will not be brought back.
	Missing []string `json:"missing,omitempty"`
}

// InnerLink is a link, of which only what differs from its usual state is set.
type InnerLink struct {
	Name string `json:"name"`
	// Kind of a link that has to be made; "" is one that exists.
	Kind string `json:"kind,omitempty"`
	// Data are the attributes of the kind (IFLA_INFO_DATA) as the kernel has them.
	Data []byte `json:"data,omitempty"`
	// Peer is the other end of a veth pair in the same namespace.
	Peer string `json:"peer,omitempty"`
	// Parent is the link that this one is on top of.
	Parent string `json:"parent,omitempty"`
	// Master is the bridge that the link is a port of, and Port its settings
	// there (IFLA_INFO_SLAVE_DATA).
	Master  string `json:"master,omitempty"`
	Port    []byte `json:"port,omitempty"`
	MAC     []byte `json:"mac,omitempty"`
	MTU     uint32 `json:"mtu,omitempty"` // bytes
	TxQueue *int32 `json:"txQueue,omitempty"`
	// Flags are the settable ones of netdevice(7), IFF_UP and so on.
	Flags *uint32 `json:"flags,omitempty"`
	Alias string  `json:"alias,omitempty"`
	Group uint32  `json:"group,omitempty"`
}

// InnerAddress is an address of a link, see rtnetlink(7).
type InnerAddress struct {
	Link      string       `json:"link"`
	Address   netip.Prefix `json:"address"`
	Peer      netip.Addr   `json:"peer,omitzero"`
	Broadcast netip.Addr   `json:"broadcast,omitzero"`
	Label     string       `json:"label,omitempty"`
	Scope     uint8        `json:"scope,omitempty"`
	Flags     uint32       `json:"flags,omitempty"`
	Metric    uint32       `json:"metric,omitempty"`
	Protocol  uint8        `json:"protocol,omitempty"`
	// Valid and Preferred are what is left of the lifetimes, in seconds; nil is
	// forever.
	Valid     *uint32 `json:"valid,omitempty"`
	Preferred *uint32 `json:"preferred,omitempty"`
}

// InnerNeighbour is a permanent neighbour, or one that the container answers for.
type InnerNeighbour struct {
	Link    string     `json:"link"`
	Address netip.Addr `json:"address"`
	MAC     []byte     `json:"mac,omitempty"`
	Proxy   bool       `json:"proxy,omitempty"`
	Flags   uint8      `json:"flags,omitempty"`
}

// InnerRoute is a route as the kernel describes it (struct rtmsg and
// attributes), but that links are numbered from 1 by their place in Links.
type InnerRoute struct {
	Links   []string `json:"links,omitempty"`
	Message []byte   `json:"message"`
}

// InnerRule is a policy rule as the kernel describes it (struct fib_rule_hdr
// and attributes), which names links.
type InnerRule struct {
	Message []byte `json:"message"`
}

// InnerFilter is one message of nftables that makes something: the number of
// its type, the address family, and the attributes (linux/netfilter/nf_tables.h).
type InnerFilter struct {
	Kind   uint8  `json:"kind"`
	Family uint8  `json:"family"`
	Data   []byte `json:"data"`
}

// Empty says that there is nothing to reinstate.
func (in Inner) Empty() bool {
	return len(in.Links)+len(in.Addresses)+len(in.Neighbours)+len(in.Routes)+
		len(in.Rules)+len(in.Filter)+len(in.Sysctls) == 0
}

// UnmarshalJSON refuses what is too large, of another version, or impossible.
func (in *Inner) UnmarshalJSON(b []byte) error {
	if len(b) > maxInnerJSON {
		return ErrInnerSize
	}
	type plain Inner
	var p plain
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return fmt.Errorf("%w: %w", ErrInner, err)
	}
	if err := Inner(p).check(); err != nil {
		return err
	}
	*in = Inner(p)
	return nil
}

// check refuses what must not reach the kernel. That the attributes make sense
// is for the kernel to say; they cannot leave the namespace, see the lists of
// what is kept of each kind of message.
func (in Inner) check() error {
	if in.Version != innerVersion && !(in.Version == 0 && in.Empty()) {
		return fmt.Errorf("%w: version %d is not known", ErrInner, in.Version)
	}
	for _, n := range []int{
		len(in.Links), len(in.Addresses), len(in.Neighbours), len(in.Routes),
		len(in.Rules), len(in.Sysctls), len(in.Missing),
	} {
		if n > maxInnerItems {
			return fmt.Errorf("%w: a list has more than %d items", ErrInner, maxInnerItems)
		}
	}
	var errs []error
	for _, l := range in.Links {
		errs = append(errs, l.check())
	}
	for _, a := range in.Addresses {
		errs = append(errs, a.check())
	}
	for _, n := range in.Neighbours {
		errs = append(errs, n.check())
	}
	for _, r := range in.Routes {
		errs = append(errs, r.check())
	}
	for _, r := range in.Rules {
		errs = append(errs, checkMessage(r.Message, sizeofRule, ruleAttributes))
	}
	for _, f := range in.Filter {
		errs = append(errs, f.check())
	}
	for key, value := range in.Sysctls {
		errs = append(errs, checkSysctl(key, value))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInner, err)
	}
	return nil
}

func (l InnerLink) check() error {
	for _, name := range []string{l.Peer, l.Parent, l.Master} {
		if name == "" {
			continue
		}
		if err := checkLinkName(name); err != nil {
			return err
		}
	}
	if _, ok := linkKinds[l.Kind]; !ok && l.Kind != "" {
		return fmt.Errorf("link %q is of the kind %q", l.Name, l.Kind)
	}
	// The attributes become one again, of at most 64 KiB.
	const most = 4096
	if len(l.MAC) > 32 || len(l.Alias) > 255 || len(l.Data) > most || len(l.Port) > most {
		return fmt.Errorf("link %q has too long an address, alias or data", l.Name)
	}
	return errors.Join(
		checkLinkName(l.Name),
		checkAttributes(l.Data, linkKinds[l.Kind]),
		checkAttributes(l.Port, portAttributes),
	)
}

func (a InnerAddress) check() error {
	if !a.Address.IsValid() || a.Address.Addr().Zone() != "" || a.Address.Addr().Is4In6() {
		return fmt.Errorf("address %q is not one", a.Address)
	}
	for _, other := range []netip.Addr{a.Peer, a.Broadcast} {
		if other.IsValid() && (other.BitLen() != a.Address.Addr().BitLen() || other.Zone() != "") {
			return fmt.Errorf("address %s goes with %s", a.Address, other)
		}
	}
	if len(a.Label) > 15 {
		return fmt.Errorf("address %s has too long a label", a.Address)
	}
	return checkLinkName(a.Link)
}

func (n InnerNeighbour) check() error {
	if !n.Address.IsValid() || n.Address.Zone() != "" || n.Address.Is4In6() || len(n.MAC) > 32 {
		return fmt.Errorf("neighbour %q is not one", n.Address)
	}
	return checkLinkName(n.Link)
}

// innerName is more than a link can be called by tools, and less than the
// kernel lets pass, which is all but slash, colon and white space.
var innerName = regexp.MustCompile(`^[^/:\s\x00-\x1f\x7f]{1,15}$`)

func checkLinkName(name string) error {
	if !innerName.MatchString(name) || name == "." || name == ".." || strings.ContainsRune(name, '%') {
		return fmt.Errorf("link name %q is not one", name)
	}
	return nil
}

// checkMessage checks a fixed part of some size and the attributes behind it.
func checkMessage(b []byte, fixed int, allowed []uint16) error {
	if len(b) < fixed {
		return errAttributes
	}
	return checkAttributes(b[fixed:], allowed)
}

func checkAttributes(b []byte, allowed []uint16) error {
	all, err := parseTLVs(b)
	if err != nil {
		return err
	}
	if len(keep(all, allowed...)) != len(b) {
		return fmt.Errorf("%w: one that is not recorded", errAttributes)
	}
	return nil
}
