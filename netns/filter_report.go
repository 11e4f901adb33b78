package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// PolicyReport compares the packet filter with what a container should have
// there.
type PolicyReport struct {
	// Missing is wanted and not there, Unwanted is there and not wanted; both in
	// words, sorted.
	Missing  []string `json:"missing,omitempty"`
	Unwanted []string `json:"unwanted,omitempty"`
	// Drops has one entry for each reason and link that has a rule, also when
	// nothing was dropped yet.
	Drops []Drop `json:"drops,omitempty"`
}

// InEffect says that the packet filter is exactly as wanted.
func (r PolicyReport) InEffect() bool { return len(r.Missing)+len(r.Unwanted) == 0 }

// Drop counts the packets that one host link lost for one reason since its rules
// were made. Changing addresses keeps the counters.
type Drop struct {
	Link    string `json:"link"`
	Reason  string `json:"reason"` // one of the Reason constants
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// PolicyOf compares the packet filter with what c wants, and reads the counters.
// It changes nothing.
//
// Errors: ErrConfig.
func PolicyOf(ctx context.Context, c Config) (report PolicyReport, err error) {
	defer wrapOp("read packet filter", "", &err)
	if err := ctx.Err(); err != nil {
		return report, err
	}
	want, err := c.policy()
	if err != nil {
		return report, err
	}
	conn, err := openPolicy()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	have, err := conn.present(want)
	if err != nil {
		return report, err
	}
	report.compare(want, have)
	for _, name := range slices.Sorted(maps.Keys(want.chains)) {
		drops, err := conn.drops(want.chains[name])
		if err != nil {
			return report, err
		}
		report.Drops = append(report.Drops, drops...)
	}
	return report, nil
}

func (r *PolicyReport) compare(want policy, have present) {
	miss := func(s string) { r.Missing = append(r.Missing, s) }
	if want.shares() && !have.nat {
		miss("the rules of NAT")
	}
	if len(want.forwards) > 0 && !have.forwards {
		miss("the rules of forwards")
	}
	for name := range want.chains {
		if !have.chains[name] {
			miss("the rules of " + name)
		}
	}
	for name := range have.chains {
		if _, wanted := want.chains[name]; !wanted && !want.shapes(name) {
			r.Unwanted = append(r.Unwanted, "the rules of "+name)
		}
	}
	for at, value := range want.entries {
		if have.elements[at.set][at.key] != (element{value, want.tag}) {
			miss(at.describe(value))
		}
	}
	for set, elements := range have.elements {
		for key, e := range elements {
			at := entry{set, key}
			if _, wanted := want.entries[at]; !wanted && e.owner == want.tag {
				r.Unwanted = append(r.Unwanted, at.describe(e.value))
			}
		}
	}
	slices.Sort(r.Missing)
	slices.Sort(r.Unwanted)
}

// describe says what an element is for.
func (e entry) describe(value string) string {
	switch e.set {
	case natSet4.Name, natSet6.Name:
		return "NAT of " + addressIn(e.key)
	case homeSet4.Name, homeSet6.Name:
		at := max(0, len(e.key)-unix.IFNAMSIZ)
		return fmt.Sprintf("link of %s: %s", addressIn(e.key[:at]), strings.TrimRight(e.key[at:], "\x00"))
	case forward4.Name, forward6.Name:
		from, _ := endpointOf(e.key)
		n := max(0, len(value)-4)
		a, _ := netip.AddrFromSlice([]byte(value[:n]))
		var port uint16
		if len(value) >= 4 {
			port = uint16(value[n])<<8 | uint16(value[n+1])
		}
		return fmt.Sprintf("forward of %s to %s", from, netip.AddrPortFrom(a, port))
	}
	at := min(unix.IFNAMSIZ, len(e.key))
	return fmt.Sprintf("address %s on %s", addressIn(e.key[at:]), strings.TrimRight(e.key[:at], "\x00"))
}

func addressIn(key string) string {
	a, _ := netip.AddrFromSlice([]byte(key))
	return a.String()
}

// drops adds up the counters of a chain by their reasons.
func (c *filterConn) drops(chain chainOf) ([]Drop, error) {
	rules, err := c.rules(chain.chain)
	if err != nil {
		return nil, err
	}
	var out []Drop
	for _, r := range rules {
		note, _ := userdata.GetString(r.comment, userdata.TypeComment)
		reason := strings.TrimPrefix(note, chain.tag+" ")
		for _, e := range r.expressions() {
			if text(attribute(e, unix.NFTA_EXPR_NAME)) != "counter" {
				continue
			}
			i := slices.IndexFunc(out, func(d Drop) bool { return d.Reason == reason })
			if i < 0 {
				i, out = len(out), append(out, Drop{Link: chain.chain.Device, Reason: reason})
			}
			data := attribute(e, unix.NFTA_EXPR_DATA)
			out[i].Packets += bigEndian(attribute(data, unix.NFTA_COUNTER_PACKETS))
			out[i].Bytes += bigEndian(attribute(data, unix.NFTA_COUNTER_BYTES))
		}
	}
	return out, nil
}

func bigEndian(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
