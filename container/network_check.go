package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/ctctl/ctctl/netns"
)

// NetworkReport is a container's network as it is, against what it should be.
type NetworkReport struct {
	netns.Report
	Policy netns.PolicyReport `json:"policy"`
	Rates  []netns.RateReport `json:"rates,omitempty"`
}

// Wrong says in words what is not as it should be; nothing when all is well.
func (r NetworkReport) Wrong() (out []string) {
	for _, d := range r.Differences {
		where := "on the host"
		if d.Inside {
			where = "inside"
		}
		out = append(out, fmt.Sprintf("%s: %s %s is %s, not %s", where, d.Kind, d.Object, cmp.Or(d.Actual, "absent"), cmp.Or(d.Wanted, "absent")))
	}
	for _, m := range r.Policy.Missing {
		out = append(out, "packet filter: missing: "+m)
	}
	for _, u := range r.Policy.Unwanted {
		out = append(out, "packet filter: not wanted: "+u)
	}
	return out
}

// InspectNetwork compares a container's network with its configuration. One that is
// stopped has none. It changes nothing and holds nobody up.
func (m *Manager) InspectNetwork(ctx context.Context, name string) (info Info, r NetworkReport, err error) {
	defer wrapOp("inspect the network of", name, &err)
	if info, err = m.get(name); err != nil {
		return info, r, err
	}
	r, err = lookAtNetwork(ctx, info)
	return info, r, err
}

func lookAtNetwork(ctx context.Context, info Info) (r NetworkReport, err error) {
	c, pid := info.Config.netConfig(), 0
	switch info.Status {
	case Running, Paused:
		pid = info.Run.PID
	case Stopped:
		return r, nil
	case Suspended:
	}
	if r.Report, err = netns.Inspect(ctx, pid, c); err != nil {
		return r, err
	}
	if pid == 0 { // what filters it comes back with it
		return r, nil
	}
	if r.Policy, err = netns.PolicyOf(ctx, c); err != nil {
		return r, err
	}
	err = r.readRates(ctx, c.Interfaces)
	return r, err
}

// readRates adds one report for each interface of the report, which has those of the
// configuration in their order. An interface that is not there has no limit, and is
// a difference already: its limits come with it.
func (r *NetworkReport) readRates(ctx context.Context, wanted []netns.Interface) error {
	for k, i := range r.Interfaces {
		if !i.Present {
			r.Rates = append(r.Rates, netns.RateReport{Link: i.HostLink})
			continue
		}
		rate, err := netns.RateOf(ctx, i.HostLink)
		if err != nil {
			return err
		}
		r.Rates = append(r.Rates, rate)
		r.Differences = append(r.Differences, rate.Differences(wanted[k].Rate)...)
	}
	return nil
}

// RepairNetwork makes a container's network be as it is configured, and says what
// was not.
func (m *Manager) RepairNetwork(ctx context.Context, name string) (wrong []string, err error) {
	defer wrapOp("repair the network of", name, &err)
	l, err := m.Lock(ctx, name, "net repair")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	return l.restoreNetwork(ctx)
}

func (l *Locked) restoreNetwork(ctx context.Context) (wrong []string, err error) {
	info := Info{Config: l.Effective(), State: l.State}
	if info.Status, info.Run, err = l.Status(); err != nil {
		return nil, err
	}
	r, err := lookAtNetwork(ctx, info)
	if err != nil {
		return nil, err
	}
	if wrong = r.Wrong(); len(wrong) == 0 {
		return nil, nil
	}
	return wrong, l.plug(ctx, change{status: info.Status, run: info.Run, from: info.Config, to: info.Config})
}
