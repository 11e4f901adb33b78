package main

import (
	"context"
	"os"
	"strconv"
	"time"
)

// payload is the command of a container that touches so many MiB.
func payload(mib int) []string { return []string{"/bin/payload", port, strconv.Itoa(mib)} }

// create makes a container with ctctl and does not start it.
func (r *rig) create(ctx context.Context, name string, mib int) (time.Duration, string, error) {
	args := []string{"create", "--template", templateName, "--ip", address + "/32", name, "--"}
	return r.run(ctx, append(args, payload(mib)...)...)
}

// starting compares how long it takes until a small container runs.
func (r *rig) starting(ctx context.Context) error {
	t := &table{
		title: "1. Create and start a container of one process; every row from the same root file system",
		head:  []string{"", "median", "fastest", "slowest", "ctctl takes × as long"},
	}
	trace := map[string]*phases{"create": {}, "start": {}}
	var both, startOnly sample
	for range r.runs {
		c, s, err := r.startOnce(ctx, trace)
		if err != nil {
			return err
		}
		both, startOnly = append(both, c+s), append(startOnly, s)
	}
	row := func(name string, s sample, than string) {
		t.add(name, show(s.median()), show(s.fastest()), show(s.slowest()), than)
	}
	row("ctctl create + ctctl start", both, "")
	row("ctctl start alone", startOnly, "")
	if err := r.others(ctx, both, row, t); err != nil {
		return err
	}
	t.notes = append(t.notes,
		"ctctl: a disk of its own, user namespace, network with an address, console, supervisor, records that survive a crash.",
		"runc, crun: `run --detach` of their default configuration; no disk, no user namespace, no address.")
	if err := t.print(os.Stdout); err != nil {
		return err
	}
	return printPhases("   Phases of it (ctctl --trace)", []string{"create", "start"}, []string{"create", "start"}, trace)
}

func (r *rig) startOnce(ctx context.Context, trace map[string]*phases) (create, start time.Duration, err error) {
	const name = "start"
	create, text, err := r.create(ctx, name, 0)
	if err != nil {
		return 0, 0, err
	}
	trace["create"].add(text)
	start, text, err = r.run(ctx, "start", name)
	if err != nil {
		return 0, 0, err
	}
	trace["start"].add(text)
	return create, start, r.host.Destroy(ctx, name, true)
}

// others measures the other runtimes on the disk of a container of ctctl.
func (r *rig) others(ctx context.Context, ours sample, row func(string, sample, string), t *table) error {
	const name = "spare"
	if _, _, err := r.create(ctx, name, 0); err != nil {
		return err
	}
	info, err := r.host.Containers.Get(ctx, name)
	if err != nil {
		return err
	}
	root := r.host.Volumes.Path(info.State.Volume)
	bundle, err := r.bundle(ctx, root)
	if err != nil {
		t.notes = append(t.notes, "runc, crun: not here: "+err.Error())
		return r.host.Destroy(ctx, name, true)
	}
	for _, other := range []runtimeUse{
		{"runc run", r.oci(bundle, "runc")},
		{"crun run", r.oci(bundle, "crun")},
		{"podman run", r.podman(root)},
	} {
		s, err := r.useRuntime(ctx, other.use)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.add(other.name, "not here", "", "", "")
			t.notes = append(t.notes, other.name+": not here: "+err.Error())
			continue
		}
		row(other.name, s, ratio(ours.median(), s.median()))
	}
	return r.host.Destroy(ctx, name, true)
}
