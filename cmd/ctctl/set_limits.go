package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/urfave/cli/v2"
)

// edits are the changes that a command line asks for, in the order of its flags'
// tables. They were checked as far as they can be without the container.
type edits []func(*container.Config) error

// all is one edit for a library that wants one.
func (e edits) all(c *container.Config) error {
	for _, edit := range e {
		if err := edit(c); err != nil {
			return err
		}
	}
	return nil
}

// limitFlags are the same for create and set.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "profile", Usage: "limits of the profile `NAME`; flags beside it count more"},
		&cli.StringFlag{Name: "cpus", Usage: "at most that `MANY` CPUs: 1.5, 150%"},
		&cli.StringFlag{Name: "cpu-weight", Usage: "share of busy CPUs, `WEIGHT` 1 to 10000 (default: 100)"},
		&cli.StringFlag{Name: "cpuset", Usage: "run on these `CPUS` only: 0-3,6"},
		&cli.StringFlag{Name: "memory", Aliases: []string{"ram"}, Usage: "at most that `SIZE` of memory"},
		&cli.StringFlag{Name: "memory-high", Usage: "slow it down and reclaim above that `SIZE`, without killing"},
		&cli.StringFlag{Name: "memory-min", Usage: "guarantee that `SIZE`: it is not reclaimed for others"},
		&cli.StringFlag{Name: "swap", Usage: "at most that `SIZE` of swap beyond the memory, or unlimited (default: 0)"},
		&cli.StringFlag{Name: "pids", Usage: "at most that `MANY` processes and threads (default: 4096)"},
		&cli.StringFlag{Name: "io-weight", Usage: "share of busy disks, `WEIGHT` 1 to 10000 (default: 100)"},
		&cli.StringSliceFlag{Name: "io-read", Usage: "read at most `DEVICE=RATE`: pool=10MB/s, /dev/sda=2000iops; may be repeated"},
		&cli.StringSliceFlag{Name: "io-write", Usage: "write at most `DEVICE=RATE`; may be repeated"},
		&cli.StringFlag{Name: "disk", Usage: "at most that `SIZE` on disk, snapshots included"},
		&cli.StringFlag{Name: "disk-warn", Usage: "warn when `PERCENT` of the disk limit are in use"},
	}
}

// limitParsers read the flags with one value. What they are given is a change of
// what there is.
var limitParsers = []struct {
	flag string
	read func(string) (func(*quota.Limits), error)
}{
	{"cpus", setting(quota.ParseCPUs, func(l *quota.Limits, v float64) { l.CPUs = v })},
	{"cpu-weight", setting(quota.ParseWeight, func(l *quota.Limits, v int64) { l.CPUWeight = v })},
	{"cpuset", setting(quota.ParseCPUSet, func(l *quota.Limits, v string) { l.CPUSet = v })},
	{"memory", setting(quota.ParseBytes, func(l *quota.Limits, v int64) { l.MemoryBytes = v })},
	{"memory-high", setting(quota.ParseBytes, func(l *quota.Limits, v int64) { l.MemoryHighBytes = v })},
	{"memory-min", setting(quota.ParseBytes, func(l *quota.Limits, v int64) { l.MemoryMinBytes = v })},
	{"swap", setting(quota.ParseSwap, func(l *quota.Limits, v int64) { l.SwapBytes = v })},
	{"pids", setting(quota.ParsePIDs, func(l *quota.Limits, v int64) { l.PIDs = v })},
	{"io-weight", setting(quota.ParseWeight, func(l *quota.Limits, v int64) { l.IOWeight = v })},
	{"io-read", setting(quota.ParseIO, func(l *quota.Limits, v quota.IOSetting) { l.IO = v.Read(l.IO) })},
	{"io-write", setting(quota.ParseIO, func(l *quota.Limits, v quota.IOSetting) { l.IO = v.Write(l.IO) })},
	{"disk", setting(quota.ParseBytes, func(l *quota.Limits, v int64) { l.DiskBytes = v })},
	{"disk-warn", setting(quota.ParsePercent, func(l *quota.Limits, v int64) { l.DiskWarnPercent = v })},
	{"cpuunits", setting(vzUnits, func(l *quota.Limits, v int64) { l.CPUWeight = v })},
	{"cpulimit", setting(vzCPULimit, func(l *quota.Limits, v float64) { l.CPUs = v })},
	{"cpumask", setting(vzMask, func(l *quota.Limits, v string) { l.CPUSet = v })},
	{"numproc", setting(func(s string) (int64, error) { return quota.ParsePIDs(vzLimit(s)) }, func(l *quota.Limits, v int64) { l.PIDs = v })},
	{"diskspace", setting(vzBlocks, func(l *quota.Limits, v int64) { l.DiskBytes = v })},
	{"ioprio", setting(vzPriority, func(l *quota.Limits, v int64) { l.IOWeight = v })},
	{"iolimit", setting(vzRate, func(l *quota.Limits, v quota.IOSetting) { l.IO = v.Write(v.Read(l.IO)) })},
	{"iopslimit", setting(vzOperations, func(l *quota.Limits, v quota.IOSetting) { l.IO = v.Write(v.Read(l.IO)) })},
}

func setting[T any](parse func(string) (T, error), set func(*quota.Limits, T)) func(string) (func(*quota.Limits), error) {
	return func(s string) (func(*quota.Limits), error) {
		v, err := parse(s)
		return func(l *quota.Limits) { set(l, v) }, err
	}
}

// limitEdits reads the flags of limitFlags and vzFlags.
func limitEdits(c *cli.Context) (e edits, err error) {
	if c.IsSet("profile") {
		p, err := profileNamed(c, c.String("profile"))
		if err != nil {
			return nil, err
		}
		e = append(e, func(cfg *container.Config) error { return p.apply(&cfg.Limits) })
	}
	for _, p := range limitParsers {
		values := []string{c.String(p.flag)}
		if strings.HasPrefix(p.flag, "io-read") || strings.HasPrefix(p.flag, "io-write") {
			values = c.StringSlice(p.flag)
		}
		if !c.IsSet(p.flag) {
			continue
		}
		for _, v := range values {
			change, err := p.read(v)
			if err != nil {
				return nil, misuse(c, "--%s: %v", p.flag, err)
			}
			e = append(e, func(cfg *container.Config) error {
				change(&cfg.Limits)
				return nil
			})
		}
	}
	return e, nil
}

// limits are those of a new container.
func limits(c *cli.Context) (l quota.Limits, err error) {
	e, err := limitEdits(c)
	if err != nil {
		return l, err
	}
	var cfg container.Config
	err = e.all(&cfg)
	return cfg.Limits, err
}

// What OpenVZ's vzctl set takes. Its values have units of their own.
func vzFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "cpuunits", Hidden: true, Usage: "`UNITS` as vzctl counts them: 1000 is the default"},
		&cli.StringFlag{Name: "cpulimit", Hidden: true, Usage: "`PERCENT` of one CPU"},
		&cli.StringFlag{Name: "cpumask", Hidden: true, Usage: "`CPUS`, or all"},
		&cli.StringFlag{Name: "numproc", Hidden: true, Usage: "`MANY` processes, or BARRIER:LIMIT"},
		&cli.StringFlag{Name: "diskspace", Hidden: true, Usage: "`SIZE`, or SOFT:HARD, in KiB without a unit"},
		&cli.StringFlag{Name: "ioprio", Hidden: true, Usage: "`PRIORITY` 0 to 7"},
		&cli.StringFlag{Name: "iolimit", Hidden: true, Usage: "`RATE` in MB/s without a unit"},
		&cli.StringFlag{Name: "iopslimit", Hidden: true, Usage: "`OPERATIONS` per second"},
	}
}

// vzLimit takes the second of BARRIER:LIMIT.
func vzLimit(s string) string {
	if _, limit, ok := strings.Cut(s, ":"); ok {
		return limit
	}
	return s
}

// vzUnits: a container of OpenVZ has 1000 units when nothing is said.
func vzUnits(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 8 || n > 500000 {
		return 0, fmt.Errorf("%w: %s: vzctl counts units from 8 to 500000, 1000 is usual; --cpu-weight counts from 1, 100 is usual", quota.ErrBadLimit, quoteWord(s))
	}
	return min(max(n/10, 1), quota.MaxWeight), nil
}

func vzCPULimit(s string) (float64, error) {
	return quota.ParseCPUs(strings.TrimSuffix(s, "%") + "%")
}

func vzMask(s string) (string, error) {
	if s == "all" {
		return "", nil
	}
	return quota.ParseCPUSet(s)
}

func vzBlocks(s string) (int64, error) {
	s = vzLimit(s)
	if _, err := strconv.ParseInt(s, 10, 64); err == nil && s != "0" {
		s += "K"
	}
	return quota.ParseBytes(s)
}

// vzPriority: 4 is the default, as is a weight of 100.
func vzPriority(s string) (int64, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 7 {
		return 0, fmt.Errorf("%w: %s is no priority from 0 to 7", quota.ErrBadLimit, quoteWord(s))
	}
	return max(int64(n)*quota.DefaultWeight/4, 10), nil
}

// vzRate bounds the transfers of the pool, in each direction. Operations are vzctl's
// --iopslimit: whoever takes this limit away keeps that one.
func vzRate(s string) (quota.IOSetting, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		s += "M"
	}
	set, err := quota.ParseIO(quota.Pool + "=" + s)
	if set.BPS != nil && *set.BPS == 0 {
		set.IOPS = nil
	}
	return set, err
}

// vzOperations bounds them likewise, and leaves bandwidth alone.
func vzOperations(s string) (quota.IOSetting, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		s += "iops"
	}
	set, err := quota.ParseIO(quota.Pool + "=" + s)
	if set.IOPS != nil && *set.IOPS == 0 {
		set.BPS = nil
	}
	return set, err
}

// ubc says of each of OpenVZ's user beancounters that there is no flag for what
// covers it here.
var ubc = func() map[string]string {
	m := map[string]string{}
	for names, cover := range map[string]string{
		"kmemsize lockedpages privvmpages shmpages physpages vmguarpages dcachesize": "--memory bounds all memory together, the kernel's too",
		"oomguarpages": "--memory-min guarantees memory",
		"swappages":    "--swap bounds swap",
		"numtcpsock numothersock numpty numflock":                 "--memory and --pids bound what it costs; there is no count of its own",
		"tcpsndbuf tcprcvbuf othersockbuf dgramrcvbuf numsiginfo": "--memory bounds the buffers with all other memory",
		"numfile":                  "--memory bounds it; inside, ulimit -n bounds a process",
		"avnumproc":                "--pids bounds processes and threads",
		"numiptent netfilter":      "the container has its own packet filter, its rules count as memory: --memory",
		"diskinodes":               "btrfs has no limit of inodes; --disk bounds space",
		"quotatime quotaugidlimit": "--disk is a hard limit; there are no quotas of users inside",
		"applyconfig":              "--profile NAME sets the limits of a profile",
		"bandwidth":                "--rate-egress and --rate-ingress bound the network",
	} {
		for n := range strings.FieldsSeq(names) {
			m[n] = cover
		}
	}
	return m
}()
