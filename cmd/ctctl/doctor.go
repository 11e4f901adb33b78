package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/host"
	"github.com/urfave/cli/v2"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "look whether this machine can run and checkpoint containers, or what ails one",
		ArgsUsage: "[NAME]",
		Description: "Kernel, namespaces, cgroups, CRIU, storage and network are looked at, and a small process tree with\n" +
			"a TCP connection is really checkpointed and restored. What fails has its cure beside it. The exit\n" +
			"code is 8 when something fails.\n\n" +
			"With a container's NAME: whether the kernel holds the limits that it should have, which of them made\n" +
			"something fail in the last day, and whether a running one can be checkpointed: each process is looked\n" +
			"at, without stopping any, for what CRIU can't save. With --for this alone.\n\n" +
			"--fix applies the cures that end nothing: a stopped process is continued, net.mptcp.enabled is turned\n" +
			"off. It says what it did and what it leaves; then everything is looked at again.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "for", Usage: "look only for what stands in the way of `OPERATION`: " + strings.Join(purposes(), ", ")},
			&cli.BoolFlag{Name: "fix", Usage: "apply the cures that end nothing inside, and say what they left"},
		},
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 0, 1)
			if err != nil {
				return err
			}
			if c.IsSet("for") && !slices.Contains(purposes(), c.String("for")) {
				return misuse(c, "--for %s: one of %s", quoteWord(c.String("for")), strings.Join(purposes(), ", "))
			}
			if c.IsSet("for") && len(args) == 0 {
				return misuse(c, "--for needs the NAME of a container")
			}
			if c.Bool("fix") && len(args) == 0 {
				return misuse(c, "--fix needs the NAME of a container")
			}
			if len(args) == 0 {
				return examineMachine(c)
			}
			if err := containerName(c, args[0]); err != nil {
				return err
			}
			return withHost(c, "examining "+args[0], func(ctx context.Context, s *session) error {
				report, err := examineContainer(ctx, s, args[0], host.Purpose(c.String("for")), c.Bool("fix"))
				if err != nil {
					return err
				}
				s.talk.stop()
				return tell(c, report)
			})
		},
	}
}

func examineContainer(ctx context.Context, s *session, name string, p host.Purpose, fix bool) (host.Report, error) {
	switch {
	case fix:
		return s.Fix(ctx, name, p)
	case p != host.ForAny:
		return s.Preflight(ctx, name, p)
	}
	return s.Examine(ctx, name)
}

// purposes are the values of --for.
func purposes() []string {
	var names []string
	for _, p := range host.Purposes {
		names = append(names, string(p))
	}
	return names
}

func examineMachine(c *cli.Context) error {
	p := newProgress(c.App.ErrWriter, progressFor(c))
	defer p.stop()
	p.say("examining this machine")
	report := host.Doctor(c.Context, host.Options{
		StateRoot: c.String("state-root"), RunRoot: c.String("run-root"), CRIU: c.String("criu"), Log: logger(c, p), Progress: p.say,
	})
	p.stop()
	if err := c.Context.Err(); err != nil {
		return err
	}
	return tell(c, report)
}

// tell prints a report. Its error has the exit code alone.
func tell(c *cli.Context, report host.Report) error {
	if err := printFindings(c, report.Findings); err != nil {
		return err
	}
	if !c.Bool("quiet") {
		fmt.Fprintln(c.App.ErrWriter, report.Summary())
	}
	if !report.OK() {
		return codeError{code: codeRefused}
	}
	return nil
}

// printFindings prints a table with the cures on lines of their own: both are long.
func printFindings(c *cli.Context, list []host.Finding) error {
	if c.String("format") != "table" {
		return emit(c, findingListing(list))
	}
	for _, f := range list {
		if c.Bool("quiet") && f.Status == host.Pass && f.Fixed == "" {
			continue
		}
		text := fmt.Sprintf("%-4s  %-11s  %s\n", f.Status, f.Area, cell(f.What))
		if f.Fixed != "" {
			text += fmt.Sprintf("%19sdone: %s\n", "", cell(f.Fixed))
		}
		if f.Cure != "" {
			text += fmt.Sprintf("%19scure: %s\n", "", cell(f.Cure))
		}
		if _, err := fmt.Fprint(c.App.Writer, text); err != nil {
			return err
		}
	}
	return nil
}

func findingListing(f []host.Finding) listing[host.Finding] {
	return listing[host.Finding]{
		kind: "Finding", items: f,
		id: func(f host.Finding) string { return f.Area },
		columns: []column[host.Finding]{
			{name: "status", text: func(f host.Finding) string { return string(f.Status) }},
			{name: "area", text: func(f host.Finding) string { return f.Area }},
			{name: "what", text: func(f host.Finding) string { return f.What }},
			{name: "cure", text: func(f host.Finding) string { return f.Cure }},
			{name: "fixed", text: func(f host.Finding) string { return f.Fixed }},
		},
	}
}
