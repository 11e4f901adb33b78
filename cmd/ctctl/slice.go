package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/template"
	"github.com/urfave/cli/v2"
)

func commands() []*cli.Command {
	each := func(name string, f func(ctx context.Context, h *host.Host, ct string) error) *cli.Command {
		return &cli.Command{Name: name, Action: func(c *cli.Context) error {
			list, err := names(c)
			if err != nil {
				return err
			}
			return withHost(c, func(ctx context.Context, h *host.Host) error {
				var errs []error
				for _, n := range list {
					errs = append(errs, f(ctx, h, n))
				}
				return errors.Join(errs...)
			})
		}}
	}
	return []*cli.Command{
		{Name: "template", Subcommands: []*cli.Command{
			{Name: "import", Action: func(c *cli.Context) error {
				return withHost(c, func(ctx context.Context, h *host.Host) error {
					t, err := h.Templates.Import(ctx, c.Args().Get(0), c.Args().Get(1))
					fmt.Println(t.Name, t.Digest, t.Init)
					return err
				})
			}},
			{Name: "build", Flags: []cli.Flag{&cli.StringFlag{Name: "suite"}, &cli.StringSliceFlag{Name: "package"}}, Action: func(c *cli.Context) error {
				return withHost(c, func(ctx context.Context, h *host.Host) error {
					t, err := h.Templates.Build(ctx, c.Args().Get(0), template.BuildOptions{Suite: c.String("suite"), Packages: c.StringSlice("package")})
					fmt.Println(t.Name, t.Digest, t.Init)
					return err
				})
			}},
		}},
		{Name: "create", Flags: []cli.Flag{
			&cli.StringFlag{Name: "template"}, &cli.StringSliceFlag{Name: "ip"}, &cli.StringFlag{Name: "memory"}, &cli.StringFlag{Name: "cpus"},
			&cli.StringFlag{Name: "disk"}, &cli.StringFlag{Name: "userns"},
		}, Action: func(c *cli.Context) error {
			o := container.CreateOptions{Template: c.String("template"), Command: c.Args().Tail(), UserNS: c.String("userns")}
			for _, ip := range c.StringSlice("ip") {
				if ip == "auto" {
					o.Auto = true
					continue
				}
				p, err := netip.ParsePrefix(ip)
				if err != nil {
					return usageError{err.Error()}
				}
				o.Addresses = append(o.Addresses, p)
			}
			if s := c.String("memory"); s != "" {
				n, err := quota.ParseBytes(s)
				if err != nil {
					return usageError{err.Error()}
				}
				o.Limits.MemoryBytes = n
			}
			return withHost(c, func(ctx context.Context, h *host.Host) error {
				cfg, err := h.Containers.Create(ctx, c.Args().First(), o)
				fmt.Println(cfg.Name, cfg.UID, cfg.Network.Addresses)
				return err
			})
		}},
		each("start", func(ctx context.Context, h *host.Host, n string) error { return h.Containers.Start(ctx, n) }),
		each("stop", func(ctx context.Context, h *host.Host, n string) error {
			return h.Containers.Stop(ctx, n, container.StopOptions{})
		}),
		each("destroy", func(ctx context.Context, h *host.Host, n string) error { return h.Destroy(ctx, n, true) }),
		each("pause", func(ctx context.Context, h *host.Host, n string) error { return h.Containers.Pause(ctx, n) }),
		each("unpause", func(ctx context.Context, h *host.Host, n string) error { return h.Containers.Unpause(ctx, n) }),
		each("suspend", func(ctx context.Context, h *host.Host, n string) error { return h.Checkpoints.Suspend(ctx, n) }),
		each("resume", func(ctx context.Context, h *host.Host, n string) error { return h.Checkpoints.Resume(ctx, n) }),
		each("status", func(ctx context.Context, h *host.Host, n string) error {
			i, err := h.Containers.Get(ctx, n)
			fmt.Println(i.Config.Name, i.Status, i.Config.Network.Addresses)
			return err
		}),
		{Name: "exec", SkipFlagParsing: true, Action: func(c *cli.Context) error {
			return withHost(c, func(ctx context.Context, h *host.Host) error {
				a := c.Args().Tail()
				if len(a) > 0 && a[0] == "--" {
					a = a[1:]
				}
				code, err := h.Containers.Exec(ctx, c.Args().First(), container.ExecOptions{Args: a, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
				if err != nil {
					return err
				}
				if code != 0 {
					return codeError(code)
				}
				return nil
			})
		}},
		{Name: "snapshot", Subcommands: []*cli.Command{{Name: "create", Flags: []cli.Flag{&cli.BoolFlag{Name: "disk-only"}}, Action: func(c *cli.Context) error {
			return withHost(c, func(ctx context.Context, h *host.Host) error {
				mf, err := h.Checkpoints.Snapshot(ctx, c.Args().Get(0), checkpoint.SnapshotOptions{Name: c.Args().Get(1), DiskOnly: c.Bool("disk-only")})
				fmt.Println(mf.Name, mf.Frozen, mf.SizeBytes())
				return err
			})
		}}}},
		{Name: "rollback", Action: func(c *cli.Context) error {
			return withHost(c, func(ctx context.Context, h *host.Host) error {
				r, err := h.Checkpoints.Rollback(ctx, c.Args().Get(0), c.Args().Get(1))
				fmt.Println(r.Safety, r.Status)
				return err
			})
		}},
		{Name: "detach", Hidden: true, Action: func(c *cli.Context) error {
			return withHost(c, func(ctx context.Context, h *host.Host) error { return h.Detach(ctx) })
		}},
	}
}
