package main

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

const manyNames = "NAME…"

// bootTimeout is how long a container may take to come up unless the user says so.
const bootTimeout = 5 * time.Minute

const comeUp = "With --wait the command returns when the container has come up: systemd has told so; sysvinit, busybox\n" +
	"and OpenRC have ended the scripts that they wait for; another init, or a command, has been executed."

func lifecycleCommands() []*cli.Command {
	timeout := &cli.DurationFlag{Name: "timeout", Usage: "kill it when it has not ended after `TIME`, like 30s or 2m (default: what its configuration says, 30s)"}
	return []*cli.Command{
		{
			Name: "start", Usage: "start containers", ArgsUsage: manyNames, Action: runStart,
			Description: comeUp,
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "wait", Usage: "wait until it has come up"},
				&cli.BoolFlag{Name: "cold", Usage: "of a suspended one: give its memory up for good and start it anew"},
				&cli.DurationFlag{Name: "timeout", Value: bootTimeout, Usage: "with --wait: not longer than `TIME`"},
			},
		},
		{
			Name: "stop", Usage: "ask containers to end, and kill those that don't", ArgsUsage: manyNames, Flags: []cli.Flag{timeout},
			Action: func(c *cli.Context) error { return runStop(c, "stopping", "stopped %s") },
		},
		{
			Name: "restart", Usage: "stop and start containers", ArgsUsage: manyNames, Description: comeUp,
			Flags: []cli.Flag{
				timeout,
				&cli.BoolFlag{Name: "wait", Usage: "wait until it has come up again, not longer than five minutes"},
			},
			Action: func(c *cli.Context) error { return runStop(c, "restarting", "restarted %s") },
		},
		{
			Name: "pause", Usage: "freeze all processes of containers; their memory stays", ArgsUsage: manyNames,
			Action: func(c *cli.Context) error {
				return each(c, "pausing", func(ctx context.Context, s *session, n string) error {
					err := s.Containers.Pause(ctx, n)
					return s.done(err, "paused %s; ctctl unpause %s lets it go on", n, n)
				})
			},
		},
		{
			Name: "unpause", Usage: "let paused containers go on", ArgsUsage: manyNames,
			Action: func(c *cli.Context) error {
				return each(c, "unpausing", func(ctx context.Context, s *session, n string) error {
					return s.done(s.Containers.Unpause(ctx, n), "unpaused %s", n)
				})
			},
		},
		{
			Name: "kill", Usage: "send a signal to process 1 of containers", ArgsUsage: manyNames, Action: runKill,
			Description: "KILL ends the container at once.",
			Flags: []cli.Flag{
				&cli.StringFlag{Name: "signal", Value: "KILL", Usage: "`SIGNAL`: a name like TERM or RTMIN+3, or a number"},
			},
		},
		{
			Name: "destroy", Usage: "remove containers, their files and snapshots", ArgsUsage: manyNames,
			Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "stop it first, without asking it"}},
			Action: func(c *cli.Context) error {
				return each(c, "destroying", func(ctx context.Context, s *session, n string) error {
					return s.done(s.Destroy(ctx, n, c.Bool("force")), "destroyed %s", n)
				})
			},
		},
	}
}

// done confirms what went well and returns what did not.
func (s *session) done(err error, format string, args ...any) error {
	if err == nil {
		s.confirm(format, args...)
	}
	return err
}

func runStart(c *cli.Context) error {
	limit := c.Duration("timeout")
	if limit <= 0 {
		return misuse(c, "--timeout: %v is no time to wait", limit)
	}
	if c.IsSet("timeout") && !c.Bool("wait") {
		return misuse(c, "--timeout goes with --wait")
	}
	return each(c, "starting", func(ctx context.Context, s *session, n string) error {
		if c.Bool("cold") {
			if err := s.Checkpoints.Forget(ctx, n); err != nil && !errors.Is(err, container.ErrState) {
				return err
			}
		}
		if err := s.Containers.Start(ctx, n); err != nil {
			return err
		}
		if !c.Bool("wait") {
			s.confirm("started %s", n)
			return nil
		}
		return s.awaitReady(ctx, n, limit, "started")
	})
}

// awaitReady waits until a container that was just started has come up.
func (s *session) awaitReady(ctx context.Context, n string, limit time.Duration, what string) error {
	s.talk.say("waiting for " + n)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	state, err := s.Containers.WaitReady(ctx, n)
	if err == nil && state != string(container.Running) {
		s.confirm("%s %s, systemd says it is %s: ctctl exec %s -- systemctl --failed shows why", what, n, state, n)
		return nil
	}
	return s.done(err, "%s %s, it is up", what, n)
}

func runStop(c *cli.Context, doing, said string) error {
	o := container.StopOptions{Timeout: c.Duration("timeout")}
	if o.Timeout < 0 {
		return misuse(c, "--timeout: %v is negative", o.Timeout)
	}
	if c.IsSet("timeout") && o.Timeout == 0 {
		o.Timeout = time.Millisecond // 0 is at once, not the default
	}
	return each(c, doing, func(ctx context.Context, s *session, n string) error {
		do := s.Containers.Stop
		if strings.HasPrefix(doing, "restart") {
			do = s.Containers.Restart
		}
		err := do(ctx, n, o)
		if err == nil && c.Bool("wait") {
			return s.awaitReady(ctx, n, bootTimeout, "restarted")
		}
		return s.done(err, said, n)
	})
}

func runKill(c *cli.Context) error {
	sig, err := container.ParseSignal(c.String("signal"))
	if err != nil {
		return misuse(c, "--signal: %v", err)
	}
	return each(c, "signalling", func(ctx context.Context, s *session, n string) error {
		err := s.Containers.Kill(ctx, n, sig)
		if errors.Is(err, syscall.ESRCH) {
			err = nil // it ended meanwhile
		}
		if sig == syscall.SIGKILL {
			return s.done(err, "killed %s", n)
		}
		return s.done(err, "sent %s to %s", c.String("signal"), n)
	})
}
