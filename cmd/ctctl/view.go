package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// containerView is a container as json and yaml show it. Absent figures are 0.
type containerView struct {
	Name        string         `json:"name"`
	Status      string         `json:"status"`
	Interrupted bool           `json:"interrupted"` // an operation was; ctctl repair settles it
	UID         string         `json:"uid"`
	CTID        uint32         `json:"ctid"`
	Template    string         `json:"template"`
	Created     time.Time      `json:"created"`
	Hostname    string         `json:"hostname"`
	Command     []string       `json:"command,omitempty"`
	Init        string         `json:"init,omitempty"`
	Env         []string       `json:"env,omitempty"`
	Workdir     string         `json:"workdir,omitempty"`
	UserNS      string         `json:"userns"`
	Onboot      bool           `json:"onboot"`
	Restart     string         `json:"restart"`
	Addresses   []netip.Prefix `json:"addresses"`
	NAT         bool           `json:"nat"`
	Network     *networkView   `json:"network,omitempty"` // what goes beyond one interface with addresses
	Limits      limitsView     `json:"limits"`
	Unsaved     []unsavedView  `json:"unsaved,omitempty"` // what of all this is not saved
	Usage       usageView      `json:"usage"`
	PID         int            `json:"pid"`
	Started     *time.Time     `json:"started,omitempty"`
	UptimeMS    int64          `json:"uptime_ms"`
	Restored    string         `json:"restored_from,omitempty"`
	Snapshots   int            `json:"snapshots"`
	Snapshot    string         `json:"snapshot,omitempty"` // that it is at
	Volume      string         `json:"volume"`
	LastExit    *exitView      `json:"last_exit,omitempty"`
	Live        string         `json:"live,omitempty"` // yes, warning, no or unknown; only where it was asked for
}

type limitsView struct {
	CPUs        float64 `json:"cpus"`
	MemoryBytes int64   `json:"memory_bytes"`
	PIDs        int64   `json:"pids"`
	DiskBytes   int64   `json:"disk_bytes"`

	CPUWeight       int64    `json:"cpu_weight,omitempty"`
	CPUSet          string   `json:"cpuset,omitempty"`
	MemoryHighBytes int64    `json:"memory_high_bytes,omitempty"`
	MemoryMinBytes  int64    `json:"memory_min_bytes,omitempty"`
	SwapBytes       int64    `json:"swap_bytes,omitempty"` // -1: any amount
	IOWeight        int64    `json:"io_weight,omitempty"`
	IO              []ioView `json:"io,omitempty"`
	DiskWarnPercent int64    `json:"disk_warn_percent,omitempty"`
}

type ioView struct {
	Device    string `json:"device"`
	ReadBPS   int64  `json:"read_bytes_per_second,omitempty"`
	WriteBPS  int64  `json:"write_bytes_per_second,omitempty"`
	ReadIOPS  int64  `json:"reads_per_second,omitempty"`
	WriteIOPS int64  `json:"writes_per_second,omitempty"`
}

func newLimitsView(l quota.Limits) limitsView {
	v := limitsView{
		CPUs: l.CPUs, MemoryBytes: l.MemoryBytes, PIDs: l.PIDs, DiskBytes: l.DiskBytes,
		CPUWeight: l.CPUWeight, CPUSet: l.CPUSet, MemoryHighBytes: l.MemoryHighBytes, MemoryMinBytes: l.MemoryMinBytes,
		SwapBytes: l.SwapBytes, IOWeight: l.IOWeight, DiskWarnPercent: l.DiskWarnPercent,
	}
	for _, d := range l.IO {
		v.IO = append(v.IO, ioView(d))
	}
	return v
}

// networkView is what a container has besides its addresses.
type networkView struct {
	Interfaces []netns.Interface `json:"interfaces"`
	DNS        []netip.Addr      `json:"dns,omitempty"`
	Search     []string          `json:"search,omitempty"`
	Forwards   []forwardView     `json:"forwards,omitempty"`
	Isolated   bool              `json:"isolated,omitempty"`
}

// newNetworkView is nil for one interface with addresses, as most have.
func newNetworkView(n container.Network) *networkView {
	plain := len(n.DNS)+len(n.Search)+len(n.Forwards) == 0 && !n.Isolated && len(n.Interfaces) < 2
	for _, i := range n.Interfaces {
		i.Name, i.Addresses, i.NAT = "", nil, false
		plain = plain && reflect.DeepEqual(i, netns.Interface{})
	}
	if plain {
		return nil
	}
	return &networkView{n.Interfaces, n.DNS, n.Search, forwardViews(n.Forwards), n.Isolated}
}

// unsavedView is a change that ends by itself.
type unsavedView struct {
	Until  *time.Time      `json:"until,omitempty"` // none: the next start
	Change json.RawMessage `json:"change"`
}

func unsavedViews(layers []container.Layer) (out []unsavedView) {
	for _, y := range layers {
		v := unsavedView{Change: y.Patch}
		if !y.Until.IsZero() {
			until := y.Until.UTC().Truncate(time.Second)
			v.Until = &until
		}
		out = append(out, v)
	}
	return out
}

type usageView struct {
	MemoryBytes int64 `json:"memory_bytes"`
	CacheBytes  int64 `json:"cache_bytes"`
	PIDs        int64 `json:"pids"`
	CPUTimeMS   int64 `json:"cpu_time_ms"`
	DiskBytes   int64 `json:"disk_bytes"`
	OOMKills    int64 `json:"oom_kills"`
}

type exitView struct {
	Code int       `json:"code"`
	Time time.Time `json:"time"`
}

// Args is what process 1 executes.
func (v containerView) Args() []string {
	if len(v.Command) == 0 {
		return []string{v.Init}
	}
	return v.Command
}

// view gathers what is known of a container. A figure that can't be read is left
// out: what is listed may change at any moment.
func (s *session) view(ctx context.Context, i container.Info) containerView {
	c := i.Config
	v := containerView{
		Name: c.Name, Status: string(i.Status), Interrupted: i.Broken, UID: c.UID, CTID: c.CTID, Template: c.Template, Created: c.Created.UTC(),
		Hostname: c.Hostname, Command: c.Command, Init: c.Init, Env: c.Env, Workdir: c.Workdir, UserNS: c.UserNS,
		Onboot: c.Onboot, Restart: c.Restart, Addresses: c.Network.Addresses(), NAT: c.Network.NAT(),
		Limits: newLimitsView(c.Limits), Network: newNetworkView(c.Network),
		Snapshot: i.State.Current, Volume: i.State.Volume,
	}
	if v.Restart == "" {
		v.Restart = "no"
	}
	if v.Addresses == nil {
		v.Addresses = []netip.Prefix{}
	}
	if e := i.State.LastExit; e != nil {
		v.LastExit = &exitView{e.Code, e.Time.UTC().Truncate(time.Millisecond)}
	}
	if i.Status == container.Running || i.Status == container.Paused {
		started := i.Run.Started.UTC().Truncate(time.Millisecond)
		v.PID, v.Started, v.Restored = i.Run.PID, &started, i.Run.Restored
		v.UptimeMS = max(0, time.Since(i.Run.Started).Milliseconds())
	}
	if i.Status != container.Stopped { // there its next start forgets it
		v.Unsaved = unsavedViews(i.State.Overlay)
	}
	v.Usage = s.usage(ctx, i)
	list, _, err := s.Checkpoints.List(ctx, c.Name) // what can be read
	if v.Snapshots = len(list); err != nil {
		s.Options.Log.Debug("list snapshots", "container", c.Name, "err", err)
	}
	return v
}

func (s *session) usage(ctx context.Context, i container.Info) (v usageView) {
	if g, err := quota.Open(i.Config.CgroupName()); err == nil {
		u, err := g.Usage()
		if err != nil && !errors.Is(err, quota.ErrNotFound) {
			s.Options.Log.Debug("read usage", "container", i.Config.Name, "err", err)
		}
		v = usageView{
			MemoryBytes: u.Memory.Held, CacheBytes: u.Memory.CacheBytes, PIDs: u.PIDs.Held,
			CPUTimeMS: u.CPU.Time.Milliseconds(), OOMKills: u.Memory.OOMKills,
		}
	}
	if limiter, ok := s.Volumes.(storage.Limiter); ok {
		if u, err := limiter.Usage(ctx, uint64(i.Config.CTID)); err == nil {
			v.DiskBytes = u.Bytes
		}
	}
	return v
}
