package netns

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// RateReport is what limits a host link of a container, as the kernel has it.
type RateReport struct {
	Link string `json:"link"`
	// Egress is what the container sends, Ingress what it receives; nil is no
	// limit.
	Egress  *ShaperReport `json:"egress,omitempty"`
	Ingress *ShaperReport `json:"ingress,omitempty"`
}

// ShaperReport is one limit with what has passed it since it was made; changing
// its rate keeps the counters.
type ShaperReport struct {
	Bits int64 `json:"bits"` // per second
	// Bytes and Packets were sent, with Ethernet headers; Dropped are packets
	// that found the queue full.
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
	Dropped uint64 `json:"dropped"`
	// WaitingBytes are in the queue now.
	WaitingBytes uint64 `json:"waitingBytes"`
}

// Differences says where the limits are not the wanted ones; [Apply] settles them.
// Rates are kept in whole bytes.
func (r RateReport) Differences(want Rate) (out []Difference) {
	for _, d := range []struct {
		direction string
		want      int64
		have      *ShaperReport
	}{{"egress", want.EgressBits, r.Egress}, {"ingress", want.IngressBits, r.Ingress}} {
		var have int64
		if d.have != nil {
			have = d.have.Bits
		}
		if d.want/8 != have/8 {
			out = append(out, Difference{Link: r.Link, Kind: "rate", Object: d.direction + " of " + r.Link, Wanted: rateWords(d.want), Actual: rateWords(have)})
		}
	}
	return out
}

func rateWords(bits int64) string {
	if bits == 0 {
		return ""
	}
	return fmt.Sprintf("%d bit/s", bits)
}

// RateOf reads the limits of a host link.
//
// Errors: ErrNoLink, ErrLinkName.
func RateOf(ctx context.Context, link string) (report RateReport, err error) {
	defer wrapOp("read rates", link, &err)
	report.Link = link
	if err := ctx.Err(); err != nil {
		return report, err
	}
	h, err := openRoute()
	if err != nil {
		return report, err
	}
	defer h.Close()
	l, err := vethNamed(h, link)
	if err != nil {
		return report, err
	}
	if l == nil {
		return report, ErrNoLink
	}
	if report.Ingress, err = shaperReport(h, l); err != nil {
		return report, err
	}
	device, err := h.LinkByName(shaperName(link))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return report, nil
	}
	if err != nil {
		return report, fmt.Errorf("find link %s: %w", shaperName(link), err)
	}
	redirected, err := redirectedTo(link, device.Attrs().Index)
	if err != nil || !redirected {
		return report, err
	}
	report.Egress, err = shaperReport(h, device)
	return report, err
}

func shaperReport(h *netlink.Handle, link netlink.Link) (*ShaperReport, error) {
	q, err := shaperOf(h, link)
	if err != nil || q == nil {
		return nil, err
	}
	r := &ShaperReport{Bits: int64(q.Rate) * 8}
	if s := q.Statistics; s != nil {
		if s.Basic != nil {
			r.Bytes, r.Packets = s.Basic.Bytes, uint64(s.Basic.Packets)
		}
		if s.Queue != nil {
			r.Dropped, r.WaitingBytes = uint64(s.Queue.Drops), uint64(s.Queue.Backlog)
		}
	}
	return r, nil
}

func redirectedTo(link string, index int) (yes bool, err error) {
	conn, err := openPolicy()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.close()) }()
	yes, _, err = conn.redirects(link, index)
	return yes, err
}
