package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	sizeofRule = 12 // struct fib_rule_hdr of linux/fib_rules.h
	// Attributes of linux/fib_rules.h.
	fraPriority = 6  // FRA_PRIORITY
	fraUIDRange = 20 // FRA_UID_RANGE
	fraProtocol = 21 // FRA_PROTOCOL
	// ruleFlags are those that can be set: FIB_RULE_INVERT.
	ruleFlags = 2
	// nextHopSize is struct rtnexthop of linux/rtnetlink.h.
	nextHopSize = 8
)

var (
	// routeAttributes are those that can be set; RTA_OIF and the next hops of
	// RTA_MULTIPATH hold the number of a link.
	routeAttributes = []uint16{
		unix.RTA_DST, unix.RTA_SRC, unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_PRIORITY, unix.RTA_PREFSRC,
		unix.RTA_METRICS, unix.RTA_MULTIPATH, unix.RTA_FLOW, unix.RTA_TABLE, unix.RTA_VIA, unix.RTA_PREF,
		unix.RTA_ENCAP_TYPE, unix.RTA_ENCAP, unix.RTA_EXPIRES,
	}
	// ruleAttributes are FRA_DST to FRA_DPORT_RANGE and their successors; none
	// of them holds the number of a link.
	ruleAttributes = func() (all []uint16) {
		for kind := uint16(1); kind <= 31; kind++ {
			all = append(all, kind)
		}
		return all
	}()
)

func (in *Inner) readRoutes(t *talk, o ours, links innerLinks) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		dumped, err := t.dump(unix.RTM_GETROUTE, append([]byte{family}, make([]byte, unix.SizeofRtMsg-1)...))
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, m := range dumped {
			if len(m.data) < unix.SizeofRtMsg {
				return errAttributes
			}
			cloned := binary.NativeEndian.Uint32(m.data[8:])&unix.RTM_F_CLONED != 0
			if cloned || m.data[0] != family {
				continue
			}
			r, gateway, err := recordRoute(m.data, links)
			if err != nil {
				return err
			}
			if o.route(m.data[5], r.Links, gateway, m.data[1]) {
				continue
			}
			in.Routes = append(in.Routes, r)
		}
	}
	return nil
}

func recordRoute(data []byte, links innerLinks) (r InnerRoute, gateway netip.Addr, err error) {
	all, err := parseTLVs(data[unix.SizeofRtMsg:])
	if err != nil {
		return r, gateway, err
	}
	gateway, _ = addressTLV(all, unix.RTA_GATEWAY)
	b := slices.Clone(data[:unix.SizeofRtMsg])
	flags := binary.NativeEndian.Uint32(b[8:])
	binary.NativeEndian.PutUint32(b[8:], flags&unix.RTNH_F_ONLINK)
	number := func(index uint32) (uint32, error) {
		name, ok := links.name[index]
		if !ok {
			return 0, fmt.Errorf("a route leads to the link %d, which is not there", index)
		}
		if !slices.Contains(r.Links, name) {
			r.Links = append(r.Links, name)
		}
		return uint32(slices.Index(r.Links, name) + 1), nil
	}
	all, err = renumber(all, number)
	if err != nil {
		return r, gateway, err
	}
	b = append(b, keep(all, routeAttributes...)...)
	if cache, ok := find(all, unix.RTA_CACHEINFO); ok && len(cache) >= 12 {
		// struct rta_cacheinfo: the third number is in hundredths of a second.
		if left := int32(binary.NativeEndian.Uint32(cache[8:])); left > 0 {
			b = appendUint32TLV(b, unix.RTA_EXPIRES, uint32(left/100))
		}
	}
	r.Message = b
	return r, gateway, nil
}

// renumber replaces the numbers of links in the attributes of a route.
func renumber(all []tlv, number func(uint32) (uint32, error)) ([]tlv, error) {
	out := slices.Clone(all)
	for i, a := range out {
		switch a.kind & attributeKind {
		case unix.RTA_OIF:
			if len(a.data) != 4 {
				return nil, errAttributes
			}
			n, err := number(binary.NativeEndian.Uint32(a.data))
			if err != nil {
				return nil, err
			}
			out[i].data = binary.NativeEndian.AppendUint32(nil, n)
		case unix.RTA_MULTIPATH:
			data, err := renumberHops(slices.Clone(a.data), number)
			if err != nil {
				return nil, err
			}
			out[i].data = data
		}
	}
	return out, nil
}

// renumberHops changes the next hops in b: length, flags, weight, link, and
// attributes, of which none holds a link.
func renumberHops(b []byte, number func(uint32) (uint32, error)) ([]byte, error) {
	for rest := b; len(rest) > 0; {
		if len(rest) < nextHopSize {
			return nil, errAttributes
		}
		size := int(binary.NativeEndian.Uint16(rest))
		if size < nextHopSize || size > len(rest) {
			return nil, errAttributes
		}
		rest[2] &= unix.RTNH_F_ONLINK
		if index := binary.NativeEndian.Uint32(rest[4:]); index != 0 {
			n, err := number(index)
			if err != nil {
				return nil, err
			}
			binary.NativeEndian.PutUint32(rest[4:], n)
		}
		rest = rest[min(align(size), len(rest)):]
	}
	return b, nil
}

func (r InnerRoute) check() error {
	for _, name := range r.Links {
		if err := checkLinkName(name); err != nil {
			return err
		}
	}
	if err := checkMessage(r.Message, unix.SizeofRtMsg, routeAttributes); err != nil {
		return err
	}
	_, err := r.request(func(string) (uint32, error) { return 1, nil })
	return err
}

// request is the message with the links of this namespace.
func (r InnerRoute) request(index func(name string) (uint32, error)) ([]byte, error) {
	all, err := parseTLVs(r.Message[unix.SizeofRtMsg:])
	if err != nil {
		return nil, err
	}
	all, err = renumber(all, func(n uint32) (uint32, error) {
		if n < 1 || int(n) > len(r.Links) {
			return 0, fmt.Errorf("a route leads to link %d of %d", n, len(r.Links))
		}
		return index(r.Links[n-1])
	})
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(r.Message[:unix.SizeofRtMsg]), keep(all, routeAttributes...)...), nil
}

// routeRounds is more than can be needed: what a gateway is reached by has, but
// for on-link routes, no gateway itself.
const routeRounds = 16

// addRoutes tries until no more can be added, as a route can need others: its
// gateway has to be reachable.
func (in Inner) addRoutes(t *talk, index map[string]uint32) error {
	left := in.Routes
	for round := 1; len(left) > 0; round++ {
		var waiting []InnerRoute
		var errs []error
		for _, r := range left {
			if err := r.add(t, index); err != nil {
				waiting = append(waiting, r)
				errs = append(errs, fmt.Errorf("add route %s: %w", r, err))
			}
		}
		if len(waiting) == len(left) || len(waiting) > 0 && round == routeRounds {
			return errors.Join(errs...)
		}
		left = waiting
	}
	return nil
}

// String names the destination and the links.
func (r InnerRoute) String() string {
	to := "default"
	if all, err := parseTLVs(r.Message[unix.SizeofRtMsg:]); err == nil && r.Message[1] > 0 {
		if dst, ok := addressTLV(all, unix.RTA_DST); ok {
			to = fmt.Sprintf("%s/%d", dst, r.Message[1])
		}
	}
	return strings.Join(append([]string{to}, r.Links...), " ")
}

func (r InnerRoute) add(t *talk, index map[string]uint32) error {
	request, err := r.request(func(name string) (uint32, error) {
		if index[name] == 0 {
			return 0, fmt.Errorf("%w: %s", ErrNoLink, name)
		}
		return index[name], nil
	})
	if err != nil {
		return err
	}
	// Of IPv4, routes that differ only in the next hop follow each other in the
	// order in which they are appended. Of IPv6, such are one route.
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_APPEND)
	if request[0] == unix.AF_INET6 {
		flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	if err := t.do(unix.RTM_NEWROUTE, flags, request); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// readRules records the policy rules. One for user ids can only be made by a
// process of the user namespace that owns the network namespace
// (fib_nl2rule), which for a foreign one we are not.
func (in *Inner) readRules(t *talk, o ours, foreign bool) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		dumped, err := t.dump(unix.RTM_GETRULE, append([]byte{family}, make([]byte, sizeofRule-1)...))
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		for _, m := range dumped {
			if len(m.data) < sizeofRule {
				return errAttributes
			}
			all, err := parseTLVs(m.data[sizeofRule:])
			if err != nil {
				return err
			}
			protocol, _ := find(all, fraProtocol)
			if len(protocol) == 1 && o.rule(uint32(protocol[0])) {
				continue
			}
			if _, users := find(all, fraUIDRange); users && foreign {
				in.miss("a policy rule for a range of user ids, of priority %d", findUint32(all, fraPriority))
				continue
			}
			b := slices.Clone(m.data[:sizeofRule])
			binary.NativeEndian.PutUint32(b[8:], binary.NativeEndian.Uint32(b[8:])&ruleFlags)
			in.Rules = append(in.Rules, InnerRule{append(b, keep(all, ruleAttributes...)...)})
		}
	}
	return nil
}

func (in Inner) addRules(t *talk) error {
	var errs []error
	for _, r := range in.Rules {
		err := t.do(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.Message)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("add rule: %w", err))
		}
	}
	return errors.Join(errs...)
}
