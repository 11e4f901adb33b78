package main

import (
	"context"
	"errors"
	"os"

	"github.com/ctctl/ctctl/container"
	"github.com/urfave/cli/v2"
)

var errIsDirectory = errors.New("is a directory")

func copyCommand() *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files into, out of and between containers",
		ArgsUsage: "SRC DST",
		Description: "One of the two, or both, is NAME:PATH; a path of the host with a colon in it is written ./a:b.\n" +
			"Directories are copied with what is in them; DIR/. is what is in DIR. What is copied to a directory\n" +
			"keeps its name. Files copied into a container belong to its root, those copied out to the caller.\n" +
			"A suspended container can only be copied from.",
		Action: func(c *cli.Context) error {
			args, err := arguments(c, 2, 2)
			if err != nil {
				return err
			}
			from, to := container.ParsePlace(args[0]), container.ParsePlace(args[1])
			switch {
			case from.Container == "" && to.Container == "":
				return misuse(c, "neither %s nor %s is NAME:PATH", quoteWord(args[0]), quoteWord(args[1]))
			case from.Path == "" || to.Path == "":
				return misuse(c, "a path is missing: %s %s", quoteWord(args[0]), quoteWord(args[1]))
			}
			if from.Container == "" {
				if _, err := os.Lstat(from.Path); err != nil {
					return misuse(c, "%v", err)
				}
			}
			return withHost(c, "copying "+from.String()+" to "+to.String(), func(ctx context.Context, s *session) error {
				return s.Containers.Copy(ctx, from, to)
			})
		},
	}
}
