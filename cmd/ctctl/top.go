package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/urfave/cli/v2"
)

const (
	topEvery  = 2 * time.Second
	onceAfter = time.Second
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:  "top",
		Usage: "watch what running containers use",
		Description: "Fills the terminal and looks again every two seconds. The letters c, m, p, d, i, w, f, u and n sort\n" +
			"by CPU, memory, processes, disk, bytes read, bytes written, limits met, uptime and name; < and >\n" +
			"take the next column, r the other way round, h shows all keys, q ends it.\n\n" +
			"With --once it looks for the length of the interval (default: 1s), prints in the format asked for,\n" +
			"and ends. CPU is in percent of one CPU. FAILS adds up how often limits were met since the container\n" +
			"was created; ctctl usage says which.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "print once; needs no terminal"},
			&cli.StringFlag{Name: "sort", Aliases: []string{"s"}, Usage: "sort by `COLUMN`; with - before it descending (default: -cpu)"},
			&cli.DurationFlag{Name: "interval", Aliases: []string{"i"}, Usage: "look every `TIME` (default: 2s)"},
		},
		Action: runTop,
	}
}

func runTop(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	order := "-cpu"
	if c.IsSet("sort") {
		order = c.String("sort")
	}
	if err := sortBy([]topView{}, topColumns, order); err != nil {
		return usageError{msg: "top: --sort: " + err.Error(), command: "top", hint: "one of " + strings.Join(topColumnNames(), ", ")}
	}
	if c.IsSet("interval") && (c.Duration("interval") < minInterval || c.Duration("interval") > maxInterval) {
		return misuse(c, "--interval: %v is not between %v and %v", c.Duration("interval"), minInterval, maxInterval)
	}
	if c.Bool("once") {
		return topOnce(c, order)
	}
	if c.String("format") != "table" {
		return misuse(c, "--format %s goes with --once", c.String("format"))
	}
	out, ok := c.App.Writer.(*os.File)
	if !ok || !isTerminal(out) || !isTerminal(os.Stdin) {
		return misuse(c, "needs a terminal; without one say --once")
	}
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		s.talk.stop()
		screen := &topScreen{order: order, interval: cmp.Or(c.Duration("interval"), topEvery)}
		return s.watchTop(ctx, out, screen)
	})
}

func topOnce(c *cli.Context, order string) error {
	return withHost(c, "looking", func(ctx context.Context, s *session) error {
		s.talk.stop()
		var w topWatch
		_, err := w.look(ctx, s)
		if err := errors.Join(err, wait(ctx, cmp.Or(c.Duration("interval"), onceAfter))); err != nil {
			return err
		}
		l := topListing()
		l.items, err = w.look(ctx, s)
		return errors.Join(err, sortBy(l.items, topColumns, order), emit(c, l))
	})
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// topView is one container as top shows it. Rates are those of the interval.
type topView struct {
	Name        string   `json:"name"`
	Status      string   `json:"status"`
	CPUPercent  float64  `json:"cpu_percent"` // of one CPU
	CPULimit    *float64 `json:"cpu_limit"`   // CPUs
	Throttled   float64  `json:"throttled_percent"`
	MemoryBytes int64    `json:"memory_bytes"`
	MemoryLimit *int64   `json:"memory_limit"`
	PIDs        int64    `json:"pids"`
	PIDsLimit   *int64   `json:"pids_limit"`
	ReadBPS     int64    `json:"read_bps"`
	WriteBPS    int64    `json:"write_bps"`
	DiskBytes   int64    `json:"disk_bytes"`
	DiskLimit   *int64   `json:"disk_limit"`
	Fails       int64    `json:"failcnt"`
	OOMKills    int64    `json:"oom_kills"`
	UptimeMS    int64    `json:"uptime_ms"`
}

func topRank[N int64 | float64](of func(topView) N) func(a, b topView) int {
	return func(a, b topView) int { return cmp.Compare(of(a), of(b)) }
}

// topColumns begin with what matters most: a narrow terminal shows no others.
var topColumns = []column[topView]{
	{name: "name", text: func(v topView) string { return v.Name }},
	{
		name: "cpu", text: func(v topView) string { return percentText(v.CPUPercent) },
		raw:     func(v topView) string { return fmt.Sprintf("%.1f", v.CPUPercent) },
		compare: topRank(func(v topView) float64 { return v.CPUPercent }),
	},
	{
		name: "memory", text: func(v topView) string { return ofMaybe(v.MemoryBytes, v.MemoryLimit, sizeText) },
		raw: func(v topView) string { return number(v.MemoryBytes) }, compare: topRank(func(v topView) int64 { return v.MemoryBytes }),
	},
	{
		name: "pids", text: func(v topView) string { return ofMaybe(v.PIDs, v.PIDsLimit, number[int64]) },
		raw: func(v topView) string { return number(v.PIDs) }, compare: topRank(func(v topView) int64 { return v.PIDs }),
	},
	{name: "fails", text: func(v topView) string { return number(v.Fails) }, compare: topRank(func(v topView) int64 { return v.Fails })},
	{
		name: "disk", text: func(v topView) string { return ofMaybe(v.DiskBytes, v.DiskLimit, sizeText) },
		raw: func(v topView) string { return number(v.DiskBytes) }, compare: topRank(func(v topView) int64 { return v.DiskBytes }),
	},
	{
		name: "read", text: func(v topView) string { return bytesPerSecond(v.ReadBPS) },
		raw: func(v topView) string { return number(v.ReadBPS) }, compare: topRank(func(v topView) int64 { return v.ReadBPS }),
	},
	{
		name: "write", text: func(v topView) string { return bytesPerSecond(v.WriteBPS) },
		raw: func(v topView) string { return number(v.WriteBPS) }, compare: topRank(func(v topView) int64 { return v.WriteBPS }),
	},
	{
		name: "throttled", text: func(v topView) string { return percentText(v.Throttled) },
		raw:     func(v topView) string { return fmt.Sprintf("%.1f", v.Throttled) },
		compare: topRank(func(v topView) float64 { return v.Throttled }),
	},
	{
		name: "uptime", text: func(v topView) string { return spanText(time.Duration(v.UptimeMS) * time.Millisecond) },
		raw: func(v topView) string { return number(v.UptimeMS) }, compare: topRank(func(v topView) int64 { return v.UptimeMS }),
	},
	{name: "status", text: func(v topView) string { return v.Status }},
}

func topColumnNames() (names []string) {
	for _, c := range topColumns {
		names = append(names, c.name)
	}
	return names
}

func topListing() listing[topView] {
	return listing[topView]{kind: "Top", columns: topColumns, id: func(v topView) string { return v.Name }}
}

func percentText(p float64) string { return fmt.Sprintf("%.1f%%", p) }

func bytesPerSecond(bps int64) string {
	if bps == 0 {
		return ""
	}
	return sizeText(bps) + "/s"
}

func ofMaybe(used int64, limit *int64, text func(int64) string) string {
	if limit == nil {
		return text(used)
	}
	return text(used) + "/" + text(*limit)
}

// topWatch remembers the look before, which rates need.
type topWatch struct{ before map[string]quota.Usage }

// look reads every container that runs. Those that can't be read are an error, the
// others are returned all the same.
func (w *topWatch) look(ctx context.Context, s *session) ([]topView, error) {
	infos, err := s.Containers.List(ctx)
	errs := []error{err}
	now := map[string]quota.Usage{}
	var views []topView
	for _, i := range infos {
		if i.Status != container.Running && i.Status != container.Paused {
			continue
		}
		u, err := s.Containers.Usage(ctx, i.Config.Name, container.UsageOptions{})
		if errors.Is(err, container.ErrNotFound) {
			continue // destroyed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		now[u.Name] = u.Now
		v := topOf(u, w.before[u.Name])
		v.UptimeMS = max(0, time.Since(i.Run.Started).Milliseconds())
		views = append(views, v)
	}
	w.before = now
	return views, errors.Join(errs...)
}

func topOf(u container.Usage, before quota.Usage) topView {
	maybe := func(n int64) *int64 {
		if n == quota.Unlimited {
			return nil
		}
		return &n
	}
	memory, pids, disk := u.Figure(container.ResourceMemory), u.Figure(container.ResourcePIDs), u.Figure(container.ResourceDisk)
	v := topView{
		Name: u.Name, Status: string(u.Status), MemoryBytes: memory.Held, MemoryLimit: maybe(memory.Limit),
		PIDs: pids.Held, PIDsLimit: maybe(pids.Limit), DiskBytes: disk.Held, DiskLimit: maybe(disk.Limit),
		OOMKills: u.Figure(container.ResourceOOM).Failures,
	}
	if l := u.Figure(container.ResourceCPU).Limit; l != quota.Unlimited {
		cpus := float64(l) / container.Millionths
		v.CPULimit = &cpus
	}
	for _, f := range u.Figures {
		v.Fails += f.Failures
	}
	if r, ok := u.Now.Rates(before); ok {
		v.CPUPercent, v.Throttled = 100*r.CPUs, r.Throttled
		v.ReadBPS, v.WriteBPS = int64(r.ReadBPS), int64(r.WriteBPS)
	}
	return v
}
