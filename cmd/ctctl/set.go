package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

func setCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "change a container, while it runs too: limits, addresses, names",
		ArgsUsage: "NAME",
		Description: "All of it is done, or nothing. What runs follows at once; what can't be given to running\n" +
			"processes waits for the next start, and it says so. Changes are saved; with --runtime they are\n" +
			"forgotten at the next start, with --for taken back after a while, ctctl or not.\n\n" +
			"A limit is taken away with 0, none, max or unlimited, a list like --dns with none.\n\n" +
			"What vzctl set takes is understood too: --ipadd --ipdel --netif_add --netif_del --ram --cpuunits\n" +
			"--cpulimit --cpumask --numproc --diskspace --ioprio --iolimit --iopslimit --nameserver\n" +
			"--searchdomain --save, in vzctl's units.",
		Flags:  slices.Concat(limitFlags(), networkFlags(), setFlags(), vzFlags(), vzSetFlags()),
		Action: runSet,
	}
}

// setFlags are those that say how, and those of neither limits nor network.
func setFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "runtime", Usage: "until the next start only"},
		&cli.StringFlag{Name: "for", Usage: "for that `TIME` only, like 90s, 2h or 7d"},
		&cli.StringFlag{Name: "onboot", Usage: "ctctl boot brings it up: `yes|no`"},
		&cli.StringFlag{Name: "restart", Usage: "start it again when it ends by itself: `POLICY` no, on-failure, always"},
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment `KEY=VALUE` of its command from its next start on; KEY= empties, KEY alone removes it; may be repeated"},
		&cli.DurationFlag{Name: "stop-timeout", Usage: "kill it when it has not ended that `TIME` after it was asked (default: 30s)"},
	}
}

func vzSetFlags() []cli.Flag {
	return []cli.Flag{&cli.BoolFlag{Name: "save", Hidden: true, Usage: "as always without --runtime"}}
}

func runSet(c *cli.Context) error {
	name, err := oneContainer(c)
	if err != nil {
		return err
	}
	ch, err := changeFrom(c)
	if err != nil {
		return err
	}
	return withHost(c, "changing "+name, func(ctx context.Context, s *session) error {
		done, err := s.Containers.Set(ctx, name, ch)
		if err != nil {
			return err
		}
		for _, n := range append(done.Notes, lonely(done.Before.Network, done.After.Network)...) {
			s.confirm("note: %s", n)
		}
		if c.String("format") != "table" {
			info, err := s.Containers.Get(ctx, name)
			if err != nil {
				return err
			}
			l := containerListing(defaultColumns)
			l.single = true
			l.items = []containerView{s.view(ctx, info)}
			return emit(c, l)
		}
		s.confirm("%s", changed(name, ch, done))
		return nil
	})
}

// changed says what was done, in one sentence.
func changed(name string, ch container.Change, done container.Changed) string {
	text := "changed " + name
	switch {
	case !done.Until.IsZero():
		text += " until " + done.Until.Local().Format(time.DateTime)
	case ch.Scope == container.Runtime:
		text += " until its next start"
	}
	if len(done.AtRestart) > 0 {
		text += "; " + strings.Join(done.AtRestart, ", ") + " will count at its next start: ctctl restart " + name
	}
	return text
}

// changeFrom reads the flags, and checks all that can be checked without the host.
func changeFrom(c *cli.Context) (ch container.Change, err error) {
	ch.NoProbe = c.Bool("no-probe")
	var all edits
	for _, read := range []func(*cli.Context) (edits, error){limitEdits, networkEdits, otherEdits} {
		e, err := read(c)
		if err != nil {
			return ch, err
		}
		all = append(all, e...)
	}
	switch {
	case len(all) == 0:
		return ch, misuse(c, "say what to change")
	case c.Bool("save") && (c.Bool("runtime") || c.IsSet("for")):
		return ch, misuse(c, "--save excludes --runtime and --for")
	}
	if c.Bool("runtime") || c.IsSet("for") {
		ch.Scope = container.Runtime
	}
	if c.IsSet("for") {
		if ch.For, err = parseSpan(c.String("for")); err != nil {
			return ch, misuse(c, "--for: %v", err)
		}
	}
	ch.Edit = all.all
	return ch, nil
}

func otherEdits(c *cli.Context) (e edits, err error) {
	if c.IsSet("onboot") {
		on, err := yesOrNo(c, "onboot")
		if err != nil {
			return nil, err
		}
		e = append(e, func(cfg *container.Config) error { cfg.Onboot = on; return nil })
	}
	if c.IsSet("restart") {
		policy := c.String("restart")
		if !slices.Contains([]string{"no", "on-failure", "always"}, policy) {
			return nil, misuse(c, "--restart: %s is none of no, on-failure, always", quoteWord(policy))
		}
		e = append(e, func(cfg *container.Config) error { cfg.Restart = policy; return nil })
	}
	if c.IsSet("stop-timeout") {
		d := c.Duration("stop-timeout")
		if d < time.Second || d%time.Second != 0 {
			return nil, misuse(c, "--stop-timeout: %v is not a whole number of seconds, one or more", d)
		}
		e = append(e, func(cfg *container.Config) error { cfg.StopTimeout = int(d / time.Second); return nil })
	}
	for _, v := range c.StringSlice("env") {
		key, _, assigned := strings.Cut(v, "=")
		if key == "" || strings.ContainsRune(v, 0) {
			return nil, misuse(c, "--env: %s is not KEY=VALUE", quoteWord(v))
		}
		e = append(e, func(cfg *container.Config) error {
			cfg.Env = slices.DeleteFunc(cfg.Env, func(have string) bool { return strings.HasPrefix(have, key+"=") })
			if assigned {
				cfg.Env = append(cfg.Env, v)
			}
			return nil
		})
	}
	return e, nil
}

// yesOrNo reads a flag that says whether.
func yesOrNo(c *cli.Context, flag string) (bool, error) {
	switch v := strings.ToLower(c.String(flag)); v {
	case "yes", "true", "on", "1":
		return true, nil
	case "no", "false", "off", "0":
		return false, nil
	}
	return false, misuse(c, "--%s: %s is neither yes nor no", flag, quoteWord(c.String(flag)))
}
