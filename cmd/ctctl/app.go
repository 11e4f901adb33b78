package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/ctctl/ctctl/host"
	"github.com/urfave/cli/v2"
)

func newApp() *cli.App {
	return &cli.App{
		Name:                   "ctctl",
		Usage:                  "containers that can be checkpointed: snapshot, roll back, suspend, resume",
		Version:                version,
		HideVersion:            true,
		EnableBashCompletion:   true,
		UseShortOptionHandling: true,
		ExitErrHandler:         func(*cli.Context, error) {},
		OnUsageError:           func(_ *cli.Context, err error, _ bool) error { return usageError{err.Error()} },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "table", Usage: "table, json, yaml, csv or ids"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only failures"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "log what is done"},
			&cli.StringFlag{Name: "state-root", Usage: "what survives a reboot", EnvVars: []string{"CTCTL_STATE_ROOT"}},
			&cli.StringFlag{Name: "run-root", Usage: "what does not", EnvVars: []string{"CTCTL_RUN_ROOT"}},
			&cli.StringFlag{Name: "criu", Usage: "the criu executable", EnvVars: []string{"CTCTL_CRIU"}},
			&cli.BoolFlag{Name: "trace", Usage: "print how long each phase took", EnvVars: []string{"CTCTL_TRACE"}},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError{fmt.Sprintf("no such command: %q; ctctl help lists them", c.Args().First())}
			}
			return cli.ShowAppHelp(c)
		},
		Commands: commands(),
	}
}

// withHost opens the host for a command and closes it.
func withHost(c *cli.Context, do func(ctx context.Context, h *host.Host) error) error {
	o := host.Options{
		StateRoot: c.String("state-root"), RunRoot: c.String("run-root"), CRIU: c.String("criu"), Log: logger(c),
	}
	if c.Bool("trace") {
		o.Trace = func(phase string, d time.Duration) {
			fmt.Fprintf(os.Stderr, "trace %-24s %9.3f ms\n", phase, float64(d.Microseconds())/1000)
		}
	}
	h, err := host.Open(c.Context, o)
	if err != nil {
		return err
	}
	defer h.Close()
	return do(c.Context, h)
}

func logger(c *cli.Context) *slog.Logger {
	level := slog.LevelWarn
	var w io.Writer = os.Stderr
	switch {
	case c.Bool("verbose"):
		level = slog.LevelDebug
	case c.Bool("quiet"):
		level = slog.LevelError
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// names takes one or more container names.
func names(c *cli.Context) ([]string, error) {
	if !c.Args().Present() {
		return nil, usageError{c.Command.HelpName + ": say which container"}
	}
	return c.Args().Slice(), nil
}

// arguments takes between least and most arguments.
func arguments(c *cli.Context, least, most int, want string) ([]string, error) {
	a := c.Args().Slice()
	if len(a) < least || most >= 0 && len(a) > most {
		return nil, usageError{fmt.Sprintf("%s: wants %s", c.Command.HelpName, want)}
	}
	return a, nil
}
