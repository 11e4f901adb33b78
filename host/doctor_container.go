package host

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
)

// Areas of findings about one container.
const (
	AreaLimits = "limits"
	AreaUsage  = "usage"
	// AreaProfile is what is done so that the container can be checkpointed.
	AreaProfile = "profile"
)

// examinedTime is how far back Examine looks for limits that were met.
const examinedTime = 24 * time.Hour

// Examine finds out whether a container has the limits that its configuration says,
// whether they are too tight for what it does, and whether it can be checkpointed.
func (h *Host) Examine(ctx context.Context, name string) (Report, error) {
	info, err := h.Containers.Get(ctx, name)
	if err != nil {
		return Report{}, err
	}
	x := &examination{o: h.Options, root: true}
	if err := x.limits(ctx, h, info); err != nil {
		return x.report, err
	}
	u, err := h.Containers.Usage(ctx, name, container.UsageOptions{Since: time.Now().Add(-examinedTime)})
	if err != nil {
		return x.report, err
	}
	x.tight(u, info.Config)
	if err := x.profile(h, info); err != nil {
		return x.report, err
	}
	return x.report, x.processes(ctx, h, name)
}

// profile tells what of the checkpointable profile is left out on purpose.
func (x *examination) profile(h *Host, info container.Info) error {
	p, err := h.Containers.CheckpointProfile(info)
	if err != nil {
		return err
	}
	cure := "set profile in " + filepath.Join(h.Options.StateRoot, "containers", info.Config.Name, "config.json") + " while it is stopped"
	switch left := info.Config.Profile.Without; {
	case !p.Checkpointable:
		x.add(AreaProfile, Warn, cure, "off: nothing keeps programs from what CRIU can't save")
	case len(left) > 0:
		x.add(AreaProfile, Warn, cure, "for %s, without %s", p.Found, strings.Join(left, ", "))
	default:
		x.pass(AreaProfile, "for %s: what CRIU can't save is refused inside", p.Found)
	}
	return nil
}

func (x *examination) limits(ctx context.Context, h *Host, info container.Info) error {
	name := info.Config.Name
	diff, err := h.Containers.CheckLimits(ctx, name)
	if err != nil {
		return err
	}
	for _, d := range diff {
		x.add(AreaLimits, Fail, "sudo ctctl repair "+name, "%s", d)
	}
	if len(diff) > 0 {
		return nil
	}
	if info.Status == container.Running || info.Status == container.Paused {
		x.pass(AreaLimits, "the kernel holds the limits that are configured")
	} else {
		x.pass(AreaLimits, "it is %s; its limits are set when it runs", info.Status)
	}
	g, err := quota.Open(info.Config.CgroupName())
	if err != nil {
		return err
	}
	for _, note := range g.WithPool(h.Volumes.Path(info.State.Volume)).Notes(info.Config.Limits) {
		x.add(AreaLimits, Warn, "", "%s", note)
	}
	return nil
}

// tight tells of limits that made something fail, not of those that only slowed it
// down: to reclaim memory, or to wait for CPUs, may be what was meant.
func (x *examination) tight(u container.Usage, c container.Config) {
	before := len(x.report.Findings)
	since := u.Since.Local().Format(time.DateTime)
	for _, r := range []struct{ resource, what, flag string }{
		{container.ResourceOOM, "processes killed for want of memory", "--memory"},
		{container.ResourcePIDs, "forks refused at the limit of processes", "--pids"},
		{container.ResourceDisk, "disk quota found used up", "--disk"},
	} {
		if n := u.Figure(r.resource).Failures; n > 0 {
			x.add(AreaUsage, Warn, "sudo ctctl set "+c.Name+" "+r.flag+" MORE", "%s since %s: %d", r.what, since, n)
		}
	}
	disk := u.Figure(container.ResourceDisk)
	if percent := c.Limits.DiskWarnPercent; percent > 0 && disk.Limit > 0 && disk.Held >= disk.Limit/100*percent {
		x.add(AreaUsage, Warn, "sudo ctctl set "+c.Name+" --disk MORE", "%d%% of the disk quota is used, --disk-warn is at %d%%", 100*disk.Held/disk.Limit, percent)
	}
	if len(x.report.Findings) == before {
		x.pass(AreaUsage, "no limit made anything fail since %s", since)
	}
}
