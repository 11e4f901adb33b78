package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/ctctl/ctctl/template"
	"github.com/urfave/cli/v2"
)

func templateCommand() *cli.Command {
	return &cli.Command{
		Name:  "template",
		Usage: "build, import, list and delete what containers are made from",
		Subcommands: []*cli.Command{
			{
				Name: "build", Usage: "make a template from a distribution's packages", ArgsUsage: "NAME",
				Description: "With mmdebstrap, in about a minute. It has no identity: machine-id and ssh host keys come with\n" +
					"each container.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "suite", Usage: "Debian's `SUITE`: bookworm, trixie, … (required)"},
					&cli.StringSliceFlag{Name: "package", Usage: "install `PACKAGE` too; may be repeated"},
					&cli.StringFlag{Name: "init", Usage: "boot with `INIT`: systemd, sysvinit, openrc, busybox, or none for containers that run one command (default: what the packages bring, else systemd)"},
					&cli.StringFlag{Name: "mirror", Usage: "fetch from the Debian mirror at `URL` (default: what the host's apt sources name)"},
				},
				Action: runTemplateBuild,
			},
			{
				Name: "import", Usage: "make a template from a root file system", ArgsUsage: "NAME FILE|DIR",
				Description: "From a directory, or from a tar archive, plain or compressed.",
				Action:      runTemplateImport,
			},
			{Name: "list", Usage: "list templates", Action: runTemplateList},
			{
				Name: "delete", Usage: "delete a template; the containers made from it stay", ArgsUsage: "NAME",
				Action: func(c *cli.Context) error {
					name, err := templateName(c, 1)
					if err != nil {
						return err
					}
					return withHost(c, "deleting template "+name, func(ctx context.Context, s *session) error {
						return s.done(s.Templates.Delete(ctx, name), "deleted template %s", name)
					})
				},
			},
		},
	}
}

// templateName takes so many arguments, of which the first is a template's name.
func templateName(c *cli.Context, count int) (string, error) {
	args, err := arguments(c, count, count)
	if err != nil {
		return "", err
	}
	if template.CheckName(args[0]) != nil {
		return "", misuse(c, "%s is no template name: use a-z, 0-9 and '-', 1 to 63 characters, not beginning with '-'", quoteWord(args[0]))
	}
	return args[0], nil
}

func runTemplateBuild(c *cli.Context) error {
	name, err := templateName(c, 1)
	if err != nil {
		return err
	}
	o := template.BuildOptions{Suite: c.String("suite"), Mirror: c.String("mirror"), Packages: c.StringSlice("package"), Init: c.String("init")}
	if o.Suite == "" {
		return misuse(c, "--suite says of which release; it is missing")
	}
	if err := o.Validate(); err != nil {
		return misuse(c, "%v", err)
	}
	return withHost(c, "building template "+name, func(ctx context.Context, s *session) error {
		t, err := s.Templates.Build(ctx, name, o)
		return published(c, s, t, err)
	})
}

func runTemplateImport(c *cli.Context) error {
	name, err := templateName(c, 2)
	if err != nil {
		return err
	}
	source := c.Args().Get(1)
	if _, err := os.Stat(source); err != nil {
		return misuse(c, "%v", err)
	}
	return withHost(c, "importing template "+name, func(ctx context.Context, s *session) error {
		t, err := s.Templates.Import(ctx, name, source)
		return published(c, s, t, err)
	})
}

func published(c *cli.Context, s *session, t template.Template, err error) error {
	if err != nil {
		return err
	}
	s.talk.stop()
	if c.String("format") != "table" {
		l := templateListing()
		l.single, l.items = true, []templateView{templateOf(t)}
		return emit(c, l)
	}
	s.confirm("template %s: %s, %s…; ctctl create NAME --template %s makes a container of it", t.Name, sizeText(t.SizeBytes), shortDigest(templateOf(t)), t.Name)
	if t.Init == "" {
		s.confirm("it has no init: give a command to create")
	}
	return nil
}

// templateView is a template as json and yaml show it.
type templateView struct {
	Name      string    `json:"name"`
	Suite     string    `json:"suite,omitempty"`
	Packages  []string  `json:"packages,omitempty"`
	Source    string    `json:"source"`
	Digest    string    `json:"digest"`
	SizeBytes int64     `json:"size_bytes"`
	Created   time.Time `json:"created"`
	Init      string    `json:"init,omitempty"`
}

func templateOf(t template.Template) templateView {
	return templateView{
		Name: t.Name, Suite: t.Suite, Packages: t.Packages, Source: t.Source, Digest: t.Digest,
		SizeBytes: t.SizeBytes, Created: t.Created.UTC().Truncate(time.Second), Init: t.Init,
	}
}

func templateListing() listing[templateView] {
	return listing[templateView]{
		kind: "Template",
		id:   func(v templateView) string { return v.Name },
		columns: []column[templateView]{
			{name: "name", text: func(v templateView) string { return v.Name }},
			{name: "suite", text: func(v templateView) string { return v.Suite }},
			{name: "init", text: func(v templateView) string { return v.Init }},
			{name: "size", text: func(v templateView) string { return sizeText(v.SizeBytes) }, raw: func(v templateView) string { return number(v.SizeBytes) }},
			{name: "created", text: func(v templateView) string { return timeText(v.Created) }, raw: func(v templateView) string { return timeRaw(v.Created) }},
			{name: "digest", text: shortDigest, raw: func(v templateView) string { return v.Digest }},
			{name: "source", text: func(v templateView) string {
				first, _, more := strings.Cut(cmp.Or(strings.Join(v.Packages, " "), v.Source), "\n")
				if r := []rune(first); len(r) > 50 {
					first, more = string(r[:49]), true
				}
				if more {
					first += "…"
				}
				return first
			}, raw: func(v templateView) string { return v.Source }},
		},
	}
}

// shortDigest is enough to tell templates apart by eye.
func shortDigest(v templateView) string {
	const shown = len("sha256:") + 12
	return v.Digest[:min(shown, len(v.Digest))]
}

func runTemplateList(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	return withHost(c, "listing", func(ctx context.Context, s *session) error {
		list, err := s.Templates.List(ctx) // what can be read, and an error
		s.talk.stop()
		l := templateListing()
		for _, t := range list {
			l.items = append(l.items, templateOf(t))
		}
		return errors.Join(err, emit(c, l))
	})
}
