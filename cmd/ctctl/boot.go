package main

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"
)

func bootCommand() *cli.Command {
	return &cli.Command{
		Name: "boot", Usage: "bring up the containers that were created with --onboot",
		Description: "For the start of the host: suspended containers go on where they were, stopped ones start, what an\n" +
			"interrupted operation left is settled first. `make install` puts a systemd unit that runs it beside the\n" +
			"program; `systemctl enable ctctl` switches it on.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait until all have come up, each not longer than five minutes"},
		},
		Action: runBoot,
	}
}

func runBoot(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	return withHost(c, "booting", func(ctx context.Context, s *session) error {
		up, err := s.Boot(ctx)
		errs := []error{err}
		for _, n := range up {
			if c.Bool("wait") {
				errs = append(errs, s.awaitReady(ctx, n, bootTimeout, "brought up"))
				continue
			}
			s.confirm("brought up %s", n)
		}
		return errors.Join(errs...)
	})
}
