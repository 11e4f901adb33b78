package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/urfave/cli/v2"
)

func usageCommand() *cli.Command {
	return &cli.Command{
		Name:      "usage",
		Usage:     "show what a container holds of each limit, and how often it met it",
		ArgsUsage: "NAME",
		Description: "Counted since the container was created, over restarts, rollbacks and resumes; or with --since for\n" +
			"the last hours or days. The first line says from when on: what is known is five minutes apart in\n" +
			"the last hour, an hour in the last day, a day in the last month.\n\n" +
			"FAILCNT is how often the limit was met: of cpu the tenths of a second in which all that is allowed\n" +
			"was used; of memory how often some had to be reclaimed, which is no error yet; of oom-kill the\n" +
			"processes killed for want of memory; of pids the forks refused; of disk the times that it was found\n" +
			"full. An io limit counts when transfers are found as fast as it allows.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "since", Usage: "of the last `TIME` only: 90m, 24h, 7d"},
		},
		Action: runUsage,
	}
}

func runUsage(c *cli.Context) error {
	name, err := oneContainer(c)
	if err != nil {
		return err
	}
	var back time.Duration
	if c.IsSet("since") {
		if back, err = parseSpan(c.String("since")); err != nil {
			return misuse(c, "--since: %v", err)
		}
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		var o container.UsageOptions
		if back > 0 {
			o.Since = time.Now().Add(-back)
		}
		u, err := s.Containers.Usage(ctx, name, o)
		if err != nil {
			return err
		}
		s.talk.stop()
		return printUsage(c.App.Writer, c.String("format"), usageOf(u))
	})
}

// parseSpan reads a time as Go writes it, or in days.
func parseSpan(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n float64
		if n, err = strconv.ParseFloat(days, 64); err == nil && n < 36500 {
			d = time.Duration(n * float64(24*time.Hour))
		}
	}
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s is no time: write it like 90m, 24h or 7d", quoteWord(s))
	}
	return d, nil
}

// consumptionView is the usage of one container as json and yaml show it.
type consumptionView struct {
	Name      string               `json:"name"`
	Status    string               `json:"status"`
	Since     time.Time            `json:"since"`
	Until     time.Time            `json:"until"`
	Resources []resourceView       `json:"resources"`
	Pressure  map[string]stallView `json:"pressure"` // by resource
	Missing   []string             `json:"missing"`  // resources of which the host counts nothing
}

// resourceView is one line. Sizes are bytes, of pids tasks, and the limit of cpu is
// in CPUs. A null limit is none.
type resourceView struct {
	Resource  string     `json:"resource"`
	Held      int64      `json:"held"`
	MaxHeld   int64      `json:"max_held"`
	Limit     *float64   `json:"limit"`
	Failcnt   int64      `json:"failcnt"`
	CPUTimeMS int64      `json:"cpu_time_ms,omitempty"`
	Read      int64      `json:"read_bytes,omitempty"`
	Written   int64      `json:"written_bytes,omitempty"`
	IOLimit   *rateLimit `json:"io_limit,omitempty"`
}

// rateLimit is per second; 0 is no limit.
type rateLimit struct {
	ReadBPS   int64 `json:"read_bps"`
	WriteBPS  int64 `json:"write_bps"`
	ReadIOPS  int64 `json:"read_iops"`
	WriteIOPS int64 `json:"write_iops"`
}

// stallView says which part of the time, in percent, some task had to wait.
type stallView struct {
	Avg10    float64 `json:"avg10"`
	Avg60    float64 `json:"avg60"`
	Avg300   float64 `json:"avg300"`
	WaitedMS int64   `json:"waited_ms"` // in the time that is told of
}

func usageOf(u container.Usage) consumptionView {
	v := consumptionView{
		Name: u.Name, Status: string(u.Status), Since: u.Since.UTC().Truncate(time.Millisecond), Until: u.Until.UTC().Truncate(time.Millisecond),
		Pressure: map[string]stallView{}, Missing: u.Missing,
	}
	if v.Missing == nil {
		v.Missing = []string{}
	}
	for _, f := range u.Figures {
		if !slices.Contains(u.Missing, f.Resource) || f.Failures > 0 {
			v.Resources = append(v.Resources, resourceOf(f))
		}
	}
	now := map[string]*quota.Stall{
		container.ResourceCPU: u.Pressure.CPU, container.ResourceMemory: u.Pressure.Memory, container.ResourceIO: u.Pressure.IO,
	}
	for name, waited := range u.Waited {
		s := stallView{WaitedMS: waited.Milliseconds()}
		if p := now[name]; p != nil {
			s.Avg10, s.Avg60, s.Avg300 = p.Some.Avg10, p.Some.Avg60, p.Some.Avg300
		}
		v.Pressure[name] = s
	}
	return v
}

func resourceOf(f container.Figure) resourceView {
	r := resourceView{
		Resource: f.Resource, Held: f.Held, MaxHeld: f.MaxHeld, Failcnt: f.Failures,
		CPUTimeMS: f.CPUTime.Milliseconds(), Read: f.Read, Written: f.Written,
	}
	if f.Limit != quota.Unlimited {
		limit := float64(f.Limit)
		if f.Resource == container.ResourceCPU {
			limit /= container.Millionths
		}
		r.Limit = &limit
	}
	if l := f.IOLimit; l != (quota.IOLimit{Device: l.Device}) {
		r.IOLimit = &rateLimit{l.ReadBPS, l.WriteBPS, l.ReadIOPS, l.WriteIOPS}
	}
	return r
}

// amount is how the resource counts.
func (r resourceView) amount(n int64) string {
	switch r.Resource {
	case container.ResourceCPU, container.ResourceOOM, container.ResourceMemoryHigh:
		return ""
	case container.ResourcePIDs:
		return numberOr(n)
	}
	return limitText(n)
}

func (r resourceView) limit() string {
	switch {
	case r.IOLimit != nil:
		return r.IOLimit.String()
	case r.Limit == nil:
		return ""
	case r.Resource == container.ResourceCPU:
		return quota.FormatCPUs(*r.Limit)
	case r.Resource == container.ResourcePIDs:
		return number(int64(*r.Limit))
	}
	return sizeText(int64(*r.Limit))
}

func (l rateLimit) String() string {
	var parts []string
	for _, p := range []struct {
		what string
		bps  int64
		iops int64
	}{{"r", l.ReadBPS, l.ReadIOPS}, {"w", l.WriteBPS, l.WriteIOPS}} {
		if p.bps > 0 {
			parts = append(parts, p.what+" "+sizeText(p.bps)+"/s")
		}
		if p.iops > 0 {
			parts = append(parts, p.what+" "+number(p.iops)+" iops")
		}
	}
	return strings.Join(parts, ", ")
}

// used is what is used up rather than held.
func (r resourceView) used() string {
	if r.Resource == container.ResourceCPU {
		return spanText(time.Duration(r.CPUTimeMS) * time.Millisecond)
	}
	var parts []string
	if r.Read > 0 {
		parts = append(parts, sizeText(r.Read)+" read")
	}
	if r.Written > 0 {
		parts = append(parts, sizeText(r.Written)+" written")
	}
	return strings.Join(parts, ", ")
}

func resourceListing() listing[resourceView] {
	return listing[resourceView]{
		kind: "Resource",
		id:   func(r resourceView) string { return r.Resource },
		columns: []column[resourceView]{
			{name: "resource", text: func(r resourceView) string { return r.Resource }},
			{name: "held", text: func(r resourceView) string { return r.amount(r.Held) }, raw: func(r resourceView) string { return number(r.Held) }},
			{name: "max_held", text: func(r resourceView) string { return r.amount(r.MaxHeld) }, raw: func(r resourceView) string { return number(r.MaxHeld) }},
			{name: "limit", text: resourceView.limit, raw: func(r resourceView) string {
				if r.Limit == nil {
					return ""
				}
				return strconv.FormatFloat(*r.Limit, 'f', -1, 64)
			}},
			{name: "failcnt", text: func(r resourceView) string { return number(r.Failcnt) }},
			{name: "used", text: resourceView.used, raw: func(r resourceView) string { return numberOr(cmp.Or(r.CPUTimeMS, r.Read+r.Written)) }},
		},
	}
}

func printUsage(w io.Writer, format string, v consumptionView) error {
	if format == "json" || format == "yaml" {
		return listing[consumptionView]{kind: "Usage", single: true, items: []consumptionView{v}}.print(w, format)
	}
	l := resourceListing()
	l.items = v.Resources
	if format != "table" {
		return l.print(w, format)
	}
	if _, err := fmt.Fprintf(w, "%s, %s, counted since %s\n", v.Name, v.Status, timeText(v.Since)); err != nil {
		return err
	}
	l.items = slices.DeleteFunc(slices.Clone(l.items), func(r resourceView) bool {
		return r.Resource == container.ResourceMemoryHigh && r.Limit == nil && r.Failcnt == 0
	})
	if err := l.print(w, format); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(v.Pressure)) {
		p := v.Pressure[name]
		waited := cmp.Or(spanText(time.Duration(p.WaitedMS)*time.Millisecond), "0 s")
		if _, err := fmt.Fprintf(w, "waiting for %-6s  %5.1f%% of 10 s  %5.1f%% of 1 min  %5.1f%% of 5 min  %s in all\n",
			name, p.Avg10, p.Avg60, p.Avg300, waited); err != nil {
			return err
		}
	}
	if len(v.Missing) > 0 {
		if _, err := fmt.Fprintf(w, "not counted on this host: %s\n", strings.Join(v.Missing, ", ")); err != nil {
			return err
		}
	}
	return nil
}
