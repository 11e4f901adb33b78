package main

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command inside",
		ArgsUsage: "NAME -- COMMAND…",
		Description: "It ends with the command's exit code, or 128 and the number of the signal that ended it; with 125\n" +
			"when ctctl itself has trouble, 126 when the command can't be executed, 127 when it was not found.\n" +
			"Commands started this way are in no snapshot, and end with a rollback or suspend.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "pass standard input to it"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run it as `USER`, a name or number, with :GROUP if need be (default: root)"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "start it in `DIR`"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "environment `KEY=VALUE`; may be repeated"},
		},
		Action: func(c *cli.Context) error { return asExec(runExec(c)) },
	}
}

// asExec gives an error of a wrong call the code that exec's callers expect.
func asExec(err error) error {
	if err == nil {
		return nil
	}
	var code codeError
	if errors.As(err, &code) {
		return err
	}
	return inside(0, err)
}

// runsInside says whether the command line was wrong of a command that answers for
// one inside.
func runsInside(err error) bool {
	var usage usageError
	return errors.As(err, &usage) && slices.Contains([]string{"exec", "enter", "runscript"}, usage.command)
}

func runExec(c *cli.Context) error {
	args, command, _ := tail(c)
	if len(args) != 1 || len(command) == 0 {
		return misuse(c, "wants %s", c.Command.ArgsUsage)
	}
	o, err := execOptions(c)
	if err != nil {
		return err
	}
	if command[0] == "" {
		return misuse(c, "the command is empty")
	}
	o.Args = command
	return attached(c, args[0], o, c.Bool("interactive"), c.Bool("tty"))
}

func execOptions(c *cli.Context) (container.ExecOptions, error) {
	name := c.Args().First()
	if err := containerName(c, name); err != nil {
		return container.ExecOptions{}, err
	}
	o := container.ExecOptions{User: c.String("user"), Cwd: c.String("workdir"), Env: c.StringSlice("env")}
	if o.Cwd != "" && !path.IsAbs(o.Cwd) {
		return o, misuse(c, "--workdir: %s is not an absolute path", quoteWord(o.Cwd))
	}
	for _, e := range o.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return o, misuse(c, "--env: %s is not KEY=VALUE", quoteWord(e))
		}
	}
	return o, nil
}

// attached runs a command inside with this program's standard files.
func attached(c *cli.Context, name string, o container.ExecOptions, stdin, tty bool) error {
	return withHost(c, "opening the host", func(ctx context.Context, s *session) error {
		s.talk.stop() // the rest is the command's
		o.Stdout, o.Stderr, o.TTY = c.App.Writer, c.App.ErrWriter, tty
		if stdin {
			o.Stdin = os.Stdin
		}
		if tty {
			if t := os.Getenv("TERM"); t != "" && !hasEnv(o.Env, "TERM") {
				o.Env = append(o.Env, "TERM="+t)
			}
			if isTerminal(os.Stdin) && stdin {
				restore, err := rawTerminal(os.Stdin)
				if err != nil {
					return err
				}
				defer restore()
				sizes, stop := windowSizes(os.Stdin)
				defer stop()
				o.Resize = sizes
			}
		}
		code, err := s.Containers.Exec(ctx, name, o)
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return inside(code, err)
	})
}

func hasEnv(env []string, key string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, key+"=") {
			return true
		}
	}
	return false
}

func enterCommand() *cli.Command {
	return &cli.Command{
		Name:        "enter",
		Usage:       "open a shell inside",
		ArgsUsage:   "NAME",
		Description: "bash if the container has it, else sh. Like every command started by exec, the shell is in no snapshot.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "as `USER` (default: root)"},
		},
		Action: func(c *cli.Context) error { return asExec(runEnter(c)) },
	}
}

const loginShell = `cd; [ -x /bin/bash ] && exec /bin/bash -l; exec /bin/sh -l`

func runEnter(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	o, err := execOptions(c)
	if err != nil {
		return err
	}
	o.Args = []string{"/bin/sh", "-c", loginShell}
	return attached(c, args[0], o, true, isTerminal(os.Stdin))
}
