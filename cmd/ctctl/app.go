package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/urfave/cli/v2"
)

func newApp() *cli.App {
	app := &cli.App{
		Name:                      "ctctl",
		Usage:                     "containers that can be checkpointed: snapshot, roll back, suspend, resume",
		Version:                   version,
		HideVersion:               true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              wrongUsage,
		Before:                    checkGlobals,
		CustomAppHelpTemplate:     appHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "table", Usage: "print `FORMAT`: " + strings.Join(formats, ", ")},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only data and failures"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "log what is done"},
			&cli.StringFlag{Name: "state-root", Usage: "`DIR` with what survives a reboot (default: " + host.DefaultStateRoot + ")", EnvVars: []string{"CTCTL_STATE_ROOT"}},
			&cli.StringFlag{Name: "run-root", Usage: "`DIR` with what does not (default: " + host.DefaultRunRoot + ")", EnvVars: []string{"CTCTL_RUN_ROOT"}},
			&cli.StringFlag{Name: "config-dir", Value: defaultConfigDir, Usage: "`DIR` whose profiles directory has profiles", EnvVars: []string{"CTCTL_CONFIG_DIR"}},
			&cli.StringFlag{Name: "criu", Usage: "`PATH` of the criu to use", EnvVars: []string{"CTCTL_CRIU"}},
			&cli.BoolFlag{Name: "trace", Usage: "print how long each phase took", EnvVars: []string{"CTCTL_TRACE"}},
		},
		Action:   func(c *cli.Context) error { return cli.ShowAppHelp(c) },
		Commands: commands(),
	}
	app.UsageText = flagLines("flags, anywhere before --", app.Flags)
	return app
}

// commands are all of them, in the order in which they are listed.
func commands() []*cli.Command {
	all := slices.Concat(
		[]*cli.Command{doctorCommand(), templateCommand(), createCommand()},
		lifecycleCommands(),
		[]*cli.Command{execCommand(), enterCommand(), consoleCommand(), logsCommand(), copyCommand(), scriptCommand()},
		[]*cli.Command{snapshotCommand(), rollbackCommand(), suspendCommand(), resumeCommand(), repairCommand(), bootCommand()},
		[]*cli.Command{listCommand(), statusCommand(), inspectCommand(), usageCommand(), topCommand(), renameCommand(), setCommand(), profileCommand(), netCommand()},
		[]*cli.Command{versionCommand(), completionCommand(), completeCommand(), manCommand(), detachCommand()},
	)
	settle(all, "")
	return all
}

// settle gives every command what all have in common.
func settle(cmds []*cli.Command, above string) {
	for _, c := range cmds {
		c.HideHelpCommand = true // a container may be called help
		c.OnUsageError = wrongUsage
		c.UsageText = flagLines("flags", c.Flags) + exampleLines(above+c.Name)
		c.CustomHelpTemplate = commandHelp
		if len(c.Subcommands) > 0 {
			c.CustomHelpTemplate = familyHelp
		}
		settle(c.Subcommands, above+c.Name+" ")
	}
}

func wrongUsage(c *cli.Context, err error, _ bool) error {
	name := ""
	if c.Command != nil {
		name = commandName(c)
	}
	text := strings.ReplaceAll(err.Error(), "for flag -", "for --") // the library's spelling
	// Times are the only values that the library parses.
	if before, ok := strings.CutSuffix(text, "parse error"); ok {
		text = before + "write it like 90s, 5m or 2h"
	}
	return usageError{msg: strings.TrimPrefix(name+": ", ": ") + text, command: name}
}

// commandName is the command as it is typed: "snapshot create".
func commandName(c *cli.Context) string { return strings.TrimPrefix(c.Command.HelpName, "ctctl ") }

func checkGlobals(c *cli.Context) error {
	if f := c.String("format"); !slices.Contains(formats, f) {
		return usageError{msg: fmt.Sprintf("--format: %s is none of %s", quoteWord(f), strings.Join(formats, ", "))}
	}
	if c.Bool("quiet") && c.Bool("verbose") {
		return usageError{msg: "--quiet and --verbose exclude each other"}
	}
	return nil
}

// session is a command at work: the open host and the way to people.
type session struct {
	*host.Host
	c    *cli.Context
	talk *progress
}

// withHost opens the host for a command and closes it. What is wrong with the
// command line is found out before.
func withHost(c *cli.Context, phase string, do func(ctx context.Context, s *session) error) (err error) {
	p := newProgress(c.App.ErrWriter, progressFor(c))
	defer p.stop()
	p.say(phase)
	o := host.Options{
		StateRoot: c.String("state-root"), RunRoot: c.String("run-root"), CRIU: c.String("criu"),
		Log: logger(c, p), Progress: p.say,
	}
	if c.Bool("trace") {
		o.Trace = func(phase string, d time.Duration) {
			fmt.Fprintf(p, "trace %-24s %9.3f ms\n", phase, span(d))
		}
	}
	h, err := host.Open(c.Context, o)
	if err != nil {
		return fmt.Errorf("%s: %w", commandName(c), err)
	}
	defer func() {
		if cerr := h.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
	}()
	return do(c.Context, &session{Host: h, c: c, talk: p})
}

// confirm tells people, on stderr, what was done.
func (s *session) confirm(format string, args ...any) {
	if !s.c.Bool("quiet") {
		fmt.Fprintln(s.talk, printable(fmt.Sprintf(format, args...)))
	}
}

// containers takes the names of one or more containers.
func containers(c *cli.Context) ([]string, error) {
	list := c.Args().Slice()
	if len(list) == 0 {
		return nil, misuse(c, "say which container")
	}
	var out []string
	for _, n := range list {
		if err := containerName(c, n); err != nil {
			return nil, err
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

func containerName(c *cli.Context, name string) error {
	if err := container.CheckName(name); err != nil {
		return misuse(c, "%s is no container name: use a-z, 0-9 and '-', 1 to 63 characters, not beginning with '-'", quoteWord(name))
	}
	return nil
}

// arguments takes between least and most arguments.
func arguments(c *cli.Context, least, most int) ([]string, error) {
	args, _, _ := tail(c)
	switch {
	case len(args) < least:
		return nil, misuse(c, "wants %s", c.Command.ArgsUsage)
	case len(args) > most && c.Command.ArgsUsage == "":
		return nil, misuse(c, "takes no arguments, not %s", quoteWord(args[0]))
	case len(args) > most:
		return nil, usageError{
			msg:     fmt.Sprintf("%s: wants %s, not also %s", commandName(c), c.Command.ArgsUsage, quoteWord(args[most])),
			command: commandName(c), hint: surplusHint(args[most], c.Command.Flags),
		}
	}
	return args, nil
}

// oneContainer takes one argument, a container's name.
func oneContainer(c *cli.Context) (string, error) {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return "", err
	}
	return args[0], containerName(c, args[0])
}

// misuse is an error of the command line.
func misuse(c *cli.Context, format string, args ...any) error {
	name := commandName(c)
	return usageError{msg: name + ": " + fmt.Sprintf(format, args...), command: name}
}

// each does the same to several containers. One that fails does not keep it from
// the others.
func each(c *cli.Context, doing string, do func(ctx context.Context, s *session, name string) error) error {
	list, err := containers(c)
	if err != nil {
		return err
	}
	return withHost(c, doing+" "+strings.Join(list, ", "), func(ctx context.Context, s *session) error {
		return inTurn(ctx, commandName(c), list, func(n string) error {
			s.talk.say(doing + " " + n)
			return do(ctx, s, n)
		})
	})
}

// inTurn does the same to one after the other. When it is interrupted it says what it
// did not come to.
func inTurn(ctx context.Context, command string, list []string, do func(name string) error) error {
	all := manyError{of: len(list)}
	for _, n := range list {
		err := ctx.Err()
		if err != nil {
			err = fmt.Errorf("%s %s: not begun: %w", command, n, err)
		} else {
			err = do(n)
		}
		if err != nil {
			all.errs = append(all.errs, err)
		}
	}
	return all.result()
}
