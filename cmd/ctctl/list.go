package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

func listCommand() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Aliases:     []string{"ls"},
		Usage:       "list containers",
		Description: "Those that run, are paused or suspended; with --all the stopped ones too.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "stopped ones too"},
			&cli.StringFlag{Name: "columns", Aliases: []string{"o"}, Usage: "show `COLUMNS`, separated by commas (default: " + defaultColumns + ")"},
			&cli.StringFlag{Name: "sort", Aliases: []string{"s"}, Usage: "sort by `COLUMN`; with - before it descending"},
			&cli.BoolFlag{Name: "list-columns", Aliases: []string{"L"}, Usage: "list the columns there are"},
		},
		Action: runList,
	}
}

func runList(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	if c.Bool("list-columns") {
		return listColumns(c)
	}
	wanted := cmp.Or(c.String("columns"), defaultColumns)
	if c.IsSet("columns") {
		wanted = c.String("columns")
	}
	l := containerListing(wanted)
	if len(l.columns) == 0 {
		_, err := pick(containerColumns, wanted)
		return err
	}
	order := "name"
	if c.IsSet("sort") {
		order = c.String("sort")
	}
	if err := sortBy([]containerView{}, containerColumns, order); err != nil {
		return err
	}
	// It takes some milliseconds each, so only who asks for it has it.
	live := slices.Contains(strings.Split(wanted+","+strings.TrimPrefix(order, "-"), ","), "live")
	return withHost(c, "listing", func(ctx context.Context, s *session) error {
		infos, err := s.Containers.List(ctx) // what can be read, and an error
		for _, i := range infos {
			if i.Status != container.Stopped || c.Bool("all") {
				v := s.view(ctx, i)
				if live {
					v.Live = s.live(ctx, i)
				}
				l.items = append(l.items, v)
			}
		}
		s.talk.stop()
		return errors.Join(err, sortBy(l.items, containerColumns, order), emit(c, l))
	})
}

func listColumns(c *cli.Context) error {
	l := listing[column[containerView]]{
		kind: "Column",
		id:   func(v column[containerView]) string { return v.name },
		columns: []column[column[containerView]]{
			{name: "column", text: func(v column[containerView]) string { return v.name }},
			{name: "meaning", text: func(v column[containerView]) string { return v.about }},
		},
		items: containerColumns,
	}
	type view struct {
		Column  string `json:"column"`
		Meaning string `json:"meaning"`
	}
	if f := c.String("format"); f != "json" && f != "yaml" {
		return emit(c, l)
	}
	j := listing[view]{kind: l.kind}
	for _, col := range containerColumns {
		j.items = append(j.items, view{col.name, col.about})
	}
	return emit(c, j)
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "say what containers are doing", ArgsUsage: manyNames,
		Action: func(c *cli.Context) error {
			return show(c, "name,status,ip,uptime,pid", false)
		},
	}
}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "show all that is known of containers", ArgsUsage: manyNames,
		Description: "As yaml, unless another format is asked for.",
		Action: func(c *cli.Context) error {
			return show(c, strings.Join(columnNames(), ","), true)
		},
	}
}

// show prints containers by name. One that is not there does not keep the others
// from being shown.
func show(c *cli.Context, columns string, full bool) error {
	list, err := containers(c)
	if err != nil {
		return err
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		l := containerListing(columns)
		l.single = len(list) == 1
		all := manyError{of: len(list)}
		for _, n := range list {
			info, err := s.Containers.Get(ctx, n)
			if err != nil {
				all.errs = append(all.errs, err)
				continue
			}
			l.items = append(l.items, s.view(ctx, info))
		}
		s.talk.stop()
		format := c.String("format")
		if full && format == "table" {
			format = "yaml"
		}
		if len(l.items) > 0 {
			if err := l.print(c.App.Writer, format); err != nil {
				return err
			}
		}
		return all.result()
	})
}

func renameCommand() *cli.Command {
	return &cli.Command{
		Name: "rename", Usage: "give a stopped container another name", ArgsUsage: "NAME NEW",
		Description: "Its addresses, files and snapshots stay. The host name inside changes if it was the old name.",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 2, 2)
			if err != nil {
				return err
			}
			for _, n := range args {
				if err := containerName(c, n); err != nil {
					return err
				}
			}
			return withHost(c, "renaming "+args[0], func(ctx context.Context, s *session) error {
				return s.done(s.Containers.Rename(ctx, args[0], args[1]), "renamed %s to %s", args[0], args[1])
			})
		},
	}
}

func detachCommand() *cli.Command {
	return &cli.Command{
		Name: "detach", Usage: "unmount the pool of a host on which nothing runs",
		Description: "The next command mounts it again. To take everything off a machine: destroy the containers, detach,\nthen remove the state root.",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			return withHost(c, "unmounting the pool", func(ctx context.Context, s *session) error {
				return s.done(s.Detach(ctx), "detached")
			})
		},
	}
}

// defaultColumns is what list shows.
const defaultColumns = "name,status,ip,template,memory,disk,uptime,snapshots"

func columnNames() []string {
	var names []string
	for _, c := range containerColumns {
		names = append(names, c.name)
	}
	return names
}

// containerListing has no columns when names are wrong.
func containerListing(names string) listing[containerView] {
	cols, err := pick(containerColumns, names)
	if err != nil {
		cols = nil
	}
	return listing[containerView]{kind: "Container", columns: cols, id: func(v containerView) string { return v.Name }}
}

func byNumber[N int | int64 | uint32 | float64](of func(containerView) N) func(a, b containerView) int {
	return func(a, b containerView) int { return cmp.Compare(of(a), of(b)) }
}

// containerColumns are all that list can show.
var containerColumns = []column[containerView]{
	{name: "name", about: "name of the container", text: func(v containerView) string { return v.Name }},
	{name: "status", about: "running, paused, suspended or stopped; ! when an operation was interrupted", text: statusText, raw: func(v containerView) string { return v.Status }},
	{name: "ip", about: "addresses", text: func(v containerView) string { return strings.Join(v.IPs(), " ") }},
	{name: "template", about: "template that it was made from", text: func(v containerView) string { return v.Template }},
	{
		name: "memory", about: "memory in use, and the limit if there is one", text: func(v containerView) string { return ofLimit(v.Usage.MemoryBytes, v.Limits.MemoryBytes) },
		raw: func(v containerView) string { return numberOr(v.Usage.MemoryBytes) }, compare: byNumber(func(v containerView) int64 { return v.Usage.MemoryBytes }),
	},
	{
		name: "memory_limit", about: "memory limit", text: func(v containerView) string { return limitText(v.Limits.MemoryBytes) },
		raw: func(v containerView) string { return numberOr(v.Limits.MemoryBytes) }, compare: byNumber(func(v containerView) int64 { return v.Limits.MemoryBytes }),
	},
	{name: "cpus", about: "limit in CPUs", text: cpusText, compare: byNumber(func(v containerView) float64 { return v.Limits.CPUs })},
	{
		name: "cpu_time", about: "CPU time used since the start", text: func(v containerView) string { return spanText(time.Duration(v.Usage.CPUTimeMS) * time.Millisecond) },
		raw: func(v containerView) string { return number(v.Usage.CPUTimeMS) }, compare: byNumber(func(v containerView) int64 { return v.Usage.CPUTimeMS }),
	},
	{
		name: "disk", about: "disk space in use, snapshots included, and the limit if there is one", text: func(v containerView) string { return ofLimit(v.Usage.DiskBytes, v.Limits.DiskBytes) },
		raw: func(v containerView) string { return numberOr(v.Usage.DiskBytes) }, compare: byNumber(func(v containerView) int64 { return v.Usage.DiskBytes }),
	},
	{
		name: "disk_limit", about: "disk limit", text: func(v containerView) string { return limitText(v.Limits.DiskBytes) },
		raw: func(v containerView) string { return numberOr(v.Limits.DiskBytes) }, compare: byNumber(func(v containerView) int64 { return v.Limits.DiskBytes }),
	},
	{
		name: "uptime", about: "time since the start, or since the resume or rollback", text: func(v containerView) string { return spanText(time.Duration(v.UptimeMS) * time.Millisecond) },
		raw: func(v containerView) string { return numberOr(v.UptimeMS) }, compare: byNumber(func(v containerView) int64 { return v.UptimeMS }),
	},
	{name: "pid", about: "process 1, as the host sees it", text: func(v containerView) string { return numberOr(v.PID) }, compare: byNumber(func(v containerView) int { return v.PID })},
	{name: "pids", about: "processes and threads, and the limit", text: pidsText, raw: func(v containerView) string { return numberOr(v.Usage.PIDs) }, compare: byNumber(func(v containerView) int64 { return v.Usage.PIDs })},
	{name: "snapshots", about: "how many snapshots there are", text: func(v containerView) string { return numberOr(v.Snapshots) }, raw: func(v containerView) string { return number(v.Snapshots) }, compare: byNumber(func(v containerView) int { return v.Snapshots })},
	{name: "snapshot", about: "the snapshot that it is at", text: func(v containerView) string { return v.Snapshot }},
	{name: "uid", about: "identifier that never changes", text: func(v containerView) string { return v.UID }},
	{name: "ctid", about: "number on this host", text: func(v containerView) string { return number(v.CTID) }, compare: byNumber(func(v containerView) uint32 { return v.CTID })},
	{name: "onboot", about: "started when the host boots", text: func(v containerView) string { return yesNo(v.Onboot) }},
	{name: "restart", about: "restart policy", text: func(v containerView) string { return v.Restart }},
	{name: "userns", about: "auto: a user namespace of its own; host: none", text: func(v containerView) string { return v.UserNS }},
	{name: "hostname", about: "host name inside", text: func(v containerView) string { return v.Hostname }},
	{name: "command", about: "what process 1 executes", text: func(v containerView) string { return strings.Join(v.Args(), " ") }},
	{
		name: "created", about: "when it was created", text: func(v containerView) string { return timeText(v.Created) }, raw: func(v containerView) string { return timeRaw(v.Created) },
		compare: func(a, b containerView) int { return a.Created.Compare(b.Created) },
	},
	{name: "exit", about: "how process 1 ended last", text: exitText},
	{name: "live", about: "of list: whether it can be checkpointed now; ctctl doctor says why not", text: func(v containerView) string { return v.Live }},
}

// live says in a word whether a container can be checkpointed.
func (s *session) live(ctx context.Context, i container.Info) string {
	if i.Status != container.Running && i.Status != container.Paused {
		return ""
	}
	r, err := s.Checkpoints.Preflight(ctx, i.Config.Name)
	switch {
	case err != nil:
		return "unknown" // it may just have ended
	case !r.OK():
		return "no"
	case len(r.Warnings()) > 0:
		return "warning"
	}
	return "yes"
}

func statusText(v containerView) string {
	if v.Interrupted {
		return v.Status + "!"
	}
	return v.Status
}

func ofLimit(used, limit int64) string {
	switch {
	case limit == 0:
		return limitText(used)
	case used == 0:
		return "-/" + sizeText(limit)
	}
	return sizeText(used) + "/" + sizeText(limit)
}

func cpusText(v containerView) string {
	if v.Limits.CPUs == 0 {
		return ""
	}
	return fmt.Sprintf("%.4g", v.Limits.CPUs)
}

func pidsText(v containerView) string {
	used := cmp.Or(numberOr(v.Usage.PIDs), "-")
	if v.Limits.PIDs == 0 {
		return used
	}
	return used + "/" + number(v.Limits.PIDs)
}

func exitText(v containerView) string {
	if v.LastExit == nil {
		return ""
	}
	return number(v.LastExit.Code)
}

// IPs are the addresses without the lengths of prefixes.
func (v containerView) IPs() []string {
	var out []string
	for _, p := range v.Addresses {
		out = append(out, p.Addr().String())
	}
	return slices.Clip(out)
}
