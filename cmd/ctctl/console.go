package main

import (
	"context"
	"io"
	"os"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

func consoleCommand() *cli.Command {
	return &cli.Command{
		Name:      "console",
		Usage:     "attach to the console of a container",
		ArgsUsage: "NAME",
		Description: "Shows what the console has shown, up to 64 KiB, and what it shows from now on; what is typed goes\n" +
			"in. ctrl-] or ctrl-a q detaches, ctrl-a ctrl-a types ctrl-a. Several may be attached at once.",
		Action: runConsole,
	}
}

func runConsole(c *cli.Context) error {
	name, err := oneContainer(c)
	if err != nil {
		return err
	}
	return withHost(c, "opening the host", func(ctx context.Context, s *session) error {
		s.talk.stop()
		o := container.ConsoleOptions{Stdin: os.Stdin, Stdout: c.App.Writer}
		tell := s.confirm
		if isTerminal(os.Stdin) {
			s.confirm("console of %s; ctrl-] or ctrl-a q detaches", name)
			restore, err := rawTerminal(os.Stdin)
			if err != nil {
				return err
			}
			defer restore()
			sizes, stop := windowSizes(os.Stdin)
			defer stop()
			o.Resize = sizes
			tell = func(text string, _ ...any) {
				if !c.Bool("quiet") {
					crlf(s.talk, text)
				}
			}
		}
		detached, err := s.Containers.Console(ctx, name, o)
		if err != nil {
			return err
		}
		if !detached {
			tell("the console was closed")
		} else if isTerminal(os.Stdin) {
			tell("detached")
		}
		return nil
	})
}

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:        "logs",
		Usage:       "print what the console of a container has shown",
		ArgsUsage:   "NAME",
		Description: "The newest 4 to 8 MiB are kept, over restarts too.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until interrupted"},
		},
		Action: func(c *cli.Context) error {
			name, err := oneContainer(c)
			if err != nil {
				return err
			}
			return withHost(c, "opening the host", func(ctx context.Context, s *session) error {
				s.talk.stop()
				return s.Containers.Logs(ctx, name, c.App.Writer, container.LogOptions{Follow: c.Bool("follow")})
			})
		},
	}
}

func scriptCommand() *cli.Command {
	return &cli.Command{
		Name:      "runscript",
		Usage:     "run a script of the host inside",
		ArgsUsage: "NAME FILE [ARGUMENT…]",
		Description: "The script need not be in the container, its interpreter must; sh is taken when its first line\n" +
			"names none. Its standard input is empty. Exit codes are as with exec. FILE - is standard input.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run it as `USER` (default: root)"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment `KEY=VALUE`; may be repeated"},
		},
		Action: func(c *cli.Context) error { return asExec(runScript(c)) },
	}
}

func runScript(c *cli.Context) error {
	args, err := arguments(c, 2, 2)
	if err != nil {
		return err
	}
	_, more, _ := tail(c)
	eo, err := execOptions(c)
	if err != nil {
		return err
	}
	var script io.Reader = os.Stdin
	if args[1] != "-" {
		f, err := openRegular(args[1])
		if err != nil {
			return misuse(c, "%v", err)
		}
		defer f.Close()
		script = f
	}
	return withHost(c, "opening the host", func(ctx context.Context, s *session) error {
		s.talk.stop()
		code, err := s.Containers.RunScript(ctx, args[0], script, container.ScriptOptions{
			Name: args[1], Args: more, User: eo.User, Env: eo.Env, Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
		})
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return inside(code, err)
	})
}

// openRegular opens a file that a user named; a directory would only fail later.
func openRegular(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = &os.PathError{Op: "read", Path: name, Err: errIsDirectory}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
