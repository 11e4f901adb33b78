package netns

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Rates in bits per second that can be asked for. Below the least one a packet of
// usual size takes longer than TCP is patient.
const (
	MinRateBits = 8_000
	MaxRateBits = 100_000_000_000
)

const (
	// shaperHandle tells our queueing discipline from others.
	shaperHandle = 0xc7c7 << 16
	// framing is what a packet is longer than the MTU: Ethernet and a VLAN tag.
	framing = 18

	shapeSuffix  = ".rate"
	shaperPrefix = "cr"
)

func (r Rate) check() error {
	for name, bits := range map[string]int64{"egress": r.EgressBits, "ingress": r.IngressBits} {
		if bits != 0 && (bits < MinRateBits || bits > MaxRateBits) {
			return badConfig("the %s rate of %d bit/s is not between %d and %d", name, bits, int64(MinRateBits), int64(MaxRateBits))
		}
	}
	return nil
}

// shaper is the token bucket for a rate; the length of packets counts with their
// Ethernet header. The bucket holds what passes in 10 ms, and at least two packets
// of full size, as the kernel never lets a packet through that is larger. Longer
// ones that the kernel has put together (GSO) are cut when they do not fit. The
// queue before it holds what passes in 100 ms, and at least eight packets: more
// would only add delay, less would keep TCP below the rate.
//
//	burst = max(rate × 10 ms, 2 × (MTU + 18 bytes))
//	limit = burst + max(rate × 100 ms, 8 × (MTU + 18 bytes))
func shaper(link netlink.Link, mtu int, bits int64) *netlink.Tbf {
	rate := uint64(bits / 8)
	packet := uint64(mtu + framing)
	burst := max(rate/100, 2*packet)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: shaperHandle, Parent: netlink.HANDLE_ROOT},
		Rate:       rate,
		Limit:      uint32(burst + max(rate/10, 8*packet)),
		Buffer:     uint32(burst * nanoseconds / rate / nanosecondsPerTick),
	}
}

// The kernel measures a bucket by the time that it takes to fill, in ticks
// (PSCHED_SHIFT in net/pkt_sched.h).
const (
	nanoseconds        = 1_000_000_000
	nanosecondsPerTick = 64
)

// applyRate makes the limits of a host link what r wants. What the container
// receives is shaped where the host sends it. What the container sends goes from
// the host's end of the link to a device of kind ifb, is shaped there, and comes
// back to the link: all of it on the host, where nobody inside can change it.
// The packet filter does the redirection and not an ingress queueing discipline,
// because that takes packets before the packet filter sees them, and returns them
// behind it: no address would be pinned.
//
// It is to be called when the link exists, before it is set up; on a running
// container a limit changes without a packet being lost. It reads first, and does
// nothing when all is as wanted; another MTU wants it again. With the zero Rate it
// removes everything. What an interface leaves behind that is no longer in the
// configuration, [applyPolicy] removes, or [reapPolicy] when its link has gone
// before.
//
// Errors: ErrConfig, *UnsupportedError.
func applyRate(h *netlink.Handle, link netlink.Link, r Rate) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := shape(h, link, link.Attrs().MTU, r.IngressBits); err != nil {
		return err
	}
	if r.EgressBits == 0 {
		return unshapeEgress(h, link.Attrs().Name)
	}
	return shapeEgress(h, link, r.EgressBits)
}

// shape gives what a link sends a rate; 0 is none.
func shape(h *netlink.Handle, link netlink.Link, mtu int, bits int64) error {
	name := link.Attrs().Name
	have, err := shaperOf(h, link)
	if err != nil {
		return err
	}
	if bits == 0 {
		if have == nil {
			return nil
		}
		if err := h.QdiscDel(have); err != nil && !isAbsent(err) {
			return fmt.Errorf("remove the limit of %s: %w", name, err)
		}
		return nil
	}
	want := shaper(link, mtu, bits)
	if have != nil && have.Rate == want.Rate && have.Limit == want.Limit && have.Buffer == want.Buffer {
		return nil
	}
	if have == nil {
		err = h.QdiscReplace(want)
	} else {
		err = h.QdiscChange(want)
	}
	if err != nil {
		return unsupported(fmt.Errorf("limit %s: %w", name, err), "sch_tbf", "NET_SCH_TBF", "rate limits")
	}
	return nil
}

// shaperOf finds our queueing discipline on a link; nil is none.
func shaperOf(h *netlink.Handle, link netlink.Link) (*netlink.Tbf, error) {
	list, err := h.QdiscList(link)
	if err != nil {
		return nil, fmt.Errorf("list the queueing disciplines of %s: %w", link.Attrs().Name, err)
	}
	for _, q := range list {
		if tbf, ok := q.(*netlink.Tbf); ok && tbf.Handle == shaperHandle {
			return tbf, nil
		}
	}
	return nil, nil
}
