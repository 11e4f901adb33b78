package main

import (
	"fmt"

	"github.com/ctctl/ctctl/host"
	"github.com/urfave/cli/v2"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look whether this machine can run and checkpoint containers",
		Description: "Kernel, namespaces, cgroups, CRIU, storage and network are looked at, and a small process tree with\n" +
			"a TCP connection is really checkpointed and restored. What fails has its cure beside it. The exit\n" +
			"code is 8 when something fails.",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
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
		},
	}
}

// printFindings prints a table with the cures on lines of their own: both are long.
func printFindings(c *cli.Context, list []host.Finding) error {
	if c.String("format") != "table" {
		return emit(c, findingListing(list))
	}
	for _, f := range list {
		if c.Bool("quiet") && f.Status == host.Pass {
			continue
		}
		text := fmt.Sprintf("%-4s  %-10s  %s\n", f.Status, f.Area, cell(f.What))
		if f.Cure != "" {
			text += fmt.Sprintf("%18scure: %s\n", "", cell(f.Cure))
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
		},
	}
}
