package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
)

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "make a container be as one of its snapshots, processes and memory included",
		ArgsUsage: "NAME SNAP",
		Description: "What it was before becomes a snapshot too; to roll back to that undoes the rollback. The last three of\n" +
			"these are kept. When the snapshot can't be restored the container is brought back as it was: exit code 11.",
		Flags: []cli.Flag{noPreflightFlag()},
		Action: func(c *cli.Context) error {
			return withSnapshot(c, 2, "rolling back", func(ctx context.Context, s *session, a []string) error {
				s.Checkpoints.NoPreflight = c.Bool("no-preflight")
				r, err := s.Checkpoints.Rollback(ctx, a[0], a[1])
				if err != nil {
					return err
				}
				s.talk.stop()
				if c.String("format") != "table" {
					return emit(c, rolledListing(rolledView{Name: a[0], Snapshot: a[1], Status: string(r.Status), Safety: r.Safety}))
				}
				s.confirm("rolled %s back to %s, it is %s\nwhat it was before: ctctl rollback %s %s", a[0], a[1], r.Status, a[0], r.Safety)
				return nil
			})
		},
	}
}

// rolledView is a rollback as json and yaml show it.
type rolledView struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"`
	Status   string `json:"status"`
	Safety   string `json:"safety"`
}

func rolledListing(v rolledView) listing[rolledView] {
	return listing[rolledView]{
		kind: "Rollback", single: true, items: []rolledView{v},
		id: func(v rolledView) string { return v.Safety },
		columns: []column[rolledView]{
			{name: "name", text: func(v rolledView) string { return v.Name }},
			{name: "snapshot", text: func(v rolledView) string { return v.Snapshot }},
			{name: "status", text: func(v rolledView) string { return v.Status }},
			{name: "safety", text: func(v rolledView) string { return v.Safety }},
		},
	}
}

func suspendCommand() *cli.Command {
	return &cli.Command{
		Name:        "suspend",
		Usage:       "write the processes of containers to disk and end them",
		ArgsUsage:   manyNames,
		Description: "Their clients hear nothing from them until they are resumed, and then go on with the same connections.",
		Flags:       []cli.Flag{noPreflightFlag()},
		Action: func(c *cli.Context) error {
			return each(c, "suspending", func(ctx context.Context, s *session, n string) error {
				s.Checkpoints.NoPreflight = c.Bool("no-preflight")
				return s.done(s.Checkpoints.Suspend(ctx, n), "suspended %s; ctctl resume %s brings it back", n, n)
			})
		},
	}
}

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name:        "resume",
		Usage:       "bring suspended containers back",
		ArgsUsage:   manyNames,
		Description: "When one can't be brought back it stays suspended, and can be resumed later: exit code 11.",
		Action: func(c *cli.Context) error {
			return each(c, "resuming", func(ctx context.Context, s *session, n string) error {
				return s.done(s.Checkpoints.Resume(ctx, n), "resumed %s", n)
			})
		},
	}
}

func repairCommand() *cli.Command {
	return &cli.Command{
		Name:      "repair",
		Usage:     "finish or undo what was interrupted",
		ArgsUsage: "[NAME]",
		Description: "After a crash or a kill of ctctl, of one container or of the whole host. What it did is printed, one\n" +
			"line each; nothing when all was well. Every command does the same for the container that it is about.",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 0, 1)
			if err != nil {
				return err
			}
			name := ""
			if len(args) > 0 {
				name = args[0]
				if err := containerName(c, name); err != nil {
					return err
				}
			}
			return withHost(c, "repairing", func(ctx context.Context, s *session) error {
				did, err := s.Repair(ctx, name)
				s.talk.stop()
				if perr := printRepair(c, s, did, err == nil); perr != nil {
					return errors.Join(err, perr)
				}
				return err
			})
		},
	}
}

func printRepair(c *cli.Context, s *session, did []string, well bool) error {
	if c.String("format") != "table" {
		type view struct {
			Done string `json:"done"`
		}
		l := listing[view]{
			kind: "Repair", id: func(v view) string { return v.Done },
			columns: []column[view]{{name: "done", text: func(v view) string { return v.Done }}},
		}
		for _, d := range did {
			l.items = append(l.items, view{d})
		}
		return emit(c, l)
	}
	for _, d := range did {
		if _, err := fmt.Fprintln(c.App.Writer, printable(d)); err != nil {
			return err
		}
	}
	if len(did) == 0 && well {
		s.confirm("nothing to repair")
	}
	return nil
}
