package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/template"
	"github.com/urfave/cli/v2"
)

func createCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a container from a template",
		ArgsUsage: "NAME [-- COMMAND…]",
		Description: "The container is stopped at first. Without a COMMAND it boots the template's init, as a\n" +
			"machine does; with one that is process 1. Sizes are powers of 1024: 512M, 1.5G, 2GiB.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "template", Usage: "`TEMPLATE` to make it from (required)"},
			&cli.StringSliceFlag{Name: "ip", Usage: "`ADDRESS` like 192.0.2.5 or 2001:db8::5/128, or auto for a pair with access to the outside; may be repeated"},
			&cli.StringFlag{Name: "hostname", Usage: "host `NAME` inside (default: the container's name)"},
			&cli.StringFlag{Name: "userns", Value: "auto", Usage: "`MODE`: auto, a user namespace and id range of its own, or host, none"},
			&cli.StringFlag{Name: "profile-checkpointable", Value: "on", Usage: "`MODE`: on, what can't be checkpointed is refused inside; or off, it is allowed, and snapshots may fail"},
			&cli.BoolFlag{Name: "onboot", Usage: "ctctl boot brings it up, which the systemd unit ctctl does when the host boots"},
			&cli.StringFlag{Name: "restart", Value: "no", Usage: "start it again when it ends by itself: `POLICY` no, on-failure, always"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment `KEY=VALUE` of its command; may be repeated"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "`DIR` inside that its command starts in"},
		}, limitFlags(), linkFlags(), vzFlags()),
		Action: runCreate,
	}
}

func runCreate(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	o, err := createOptions(c, args[0])
	if err != nil {
		return err
	}
	return withHost(c, "creating "+args[0], func(ctx context.Context, s *session) error {
		cfg, err := s.Containers.Create(ctx, args[0], o)
		if err != nil {
			return err
		}
		if c.String("format") != "table" {
			info, err := s.Containers.Get(ctx, cfg.Name)
			if err != nil {
				return err
			}
			l := containerListing(defaultColumns)
			l.single = true
			l.items = []containerView{s.view(ctx, info)}
			return emit(c, l)
		}
		for _, n := range lonely(container.Network{}, cfg.Network) {
			s.confirm("note: %s", n)
		}
		with := ""
		for i, p := range cfg.Network.Addresses() {
			with += []string{" with ", ", "}[min(i, 1)] + p.Addr().String()
		}
		s.confirm("created %s%s; ctctl start %s starts it", cfg.Name, with, cfg.Name)
		return nil
	})
}

// createOptions reads the flags, and checks all that can be checked without the host.
func createOptions(c *cli.Context, name string) (o container.CreateOptions, err error) {
	_, command, split := tail(c)
	if split && len(command) == 0 {
		return o, misuse(c, "no command after --")
	}
	o = container.CreateOptions{
		Template: c.String("template"), Command: command, Hostname: c.String("hostname"), UserNS: c.String("userns"),
		Onboot: c.Bool("onboot"), Restart: c.String("restart"), Env: c.StringSlice("env"), Workdir: c.String("workdir"),
		NoProbe: c.Bool("no-probe"),
	}
	if c.IsSet("profile-checkpointable") {
		o.Profile.Checkpointable = c.String("profile-checkpointable")
	}
	if err := containerName(c, name); err != nil {
		return o, err
	}
	switch {
	case o.Template == "":
		return o, usageError{msg: "create: --template says from what; it is missing", hint: "ctctl template list shows what there is"}
	case template.CheckName(o.Template) != nil:
		return o, misuse(c, "--template: %s is no template name", quoteWord(o.Template))
	}
	if o.Addresses, o.Auto, err = addresses(c); err != nil {
		return o, err
	}
	if o.Limits, err = limits(c); err != nil {
		return o, err
	}
	network, err := networkEdits(c)
	if err != nil {
		return o, err
	}
	o.Edit = network.all
	return o, checkConfig(c, name, o)
}

// checkConfig asks the library what it would say of the configuration. Number, uid
// and init are not known yet.
func checkConfig(c *cli.Context, name string, o container.CreateOptions) error {
	cfg := container.Config{
		Name: name, UID: strings.Repeat("0", 16), CTID: 1, Template: o.Template, Hostname: name, Command: o.Command, Init: "/sbin/init",
		Env: o.Env, Workdir: o.Workdir, UserNS: o.UserNS, Profile: o.Profile, Limits: o.Limits, Restart: o.Restart,
		Network: container.Network{Interfaces: []netns.Interface{{Name: "eth0", Addresses: o.Addresses}}},
	}
	if c.IsSet("hostname") {
		cfg.Hostname = o.Hostname
	}
	if o.Auto { // which ones is not known yet
		first := &cfg.Network.Interfaces[0]
		first.Addresses = append(slices.Clone(o.Addresses), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::1/128"))
	}
	err := o.Edit(&cfg)
	if err == nil && len(cfg.Network.Forwards) > 0 && len(cfg.Network.Addresses()) == 0 {
		return misuse(c, "--publish leads to an address of the container, and it has none: give it one with --ip, or --ip auto")
	}
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		return misuse(c, "%v", err)
	}
	return nil
}

func addresses(c *cli.Context) (list []netip.Prefix, auto bool, err error) {
	for _, ip := range c.StringSlice("ip") {
		if ip == "auto" {
			auto = true
			continue
		}
		p, err := usableAddress(ip)
		if err != nil {
			return nil, false, misuse(c, "--ip: %v, or auto", err)
		}
		list = append(list, p)
	}
	return list, auto, nil
}
