package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ctctl/ctctl/host"
	"github.com/urfave/cli/v2"
)

func manCommand() *cli.Command {
	return &cli.Command{
		Name: "man", Usage: "write the man pages",
		Flags: []cli.Flag{&cli.StringFlag{Name: "dir", Usage: "write them to `DIR` (required)"}},
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			dir := c.String("dir")
			if dir == "" {
				return misuse(c, "--dir says where to; it is missing")
			}
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("man: %w", err)
			}
			for name, page := range manPages(newApp()) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(page), 0o644); err != nil { //nolint:gosec // for everybody to read
					return fmt.Errorf("man: %w", err)
				}
			}
			return nil
		},
	}
}

// manPages are the pages by file name: ctctl.1, and one for each command.
func manPages(app *cli.App) map[string]string {
	pages := map[string]string{"ctctl.1": mainPage(app)}
	for _, c := range app.Commands {
		if !c.Hidden {
			pages["ctctl-"+c.Name+".1"] = commandPage(c)
		}
	}
	return pages
}

// roff builds a page in the language of man(7).
type roff struct{ b strings.Builder }

func (r *roff) head(name, about string) {
	fmt.Fprintf(&r.b, ".TH %s 1 \"\" \"ctctl %s\" \"User Commands\"\n", strings.ToUpper(roffText(name)), roffText(version))
	r.section("NAME")
	fmt.Fprintf(&r.b, "%s \\- %s\n", roffText(name), roffText(about))
}

func (r *roff) section(title string) { fmt.Fprintf(&r.b, ".SH %s\n", title) }

func (r *roff) paragraph(text string) {
	if text == "" {
		return
	}
	r.b.WriteString(".PP\n" + roffLines(text) + "\n")
}

// item is a term, already in roff, and what it means.
func (r *roff) item(term, text string) {
	fmt.Fprintf(&r.b, ".TP\n%s\n%s\n", term, roffLines(text))
}

func (r *roff) flags(title string, flags []cli.Flag) {
	if len(flags) == 0 {
		return
	}
	r.section(title)
	for _, f := range flags {
		r.item(flagTerm(f, roffTerm), flagText(f))
	}
}

// roffText escapes what roff would take for its own.
func roffText(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&...`, "'", `\(aq`).Replace(s)
}

// roffLines escapes lines, too, that begin like a request.
func roffLines(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		line = roffText(strings.TrimRight(line, "\n"))
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

var roffTerm = termStyle{
	name:  func(s string) string { return `\fB` + roffText(s) + `\fR` },
	value: func(s string) string { return `\fI` + roffText(s) + `\fR` },
}

func mainPage(app *cli.App) string {
	r := new(roff)
	r.head("ctctl", app.Usage)
	r.section("SYNOPSIS")
	r.b.WriteString(".B ctctl\n[\\fIflags\\fR] \\fIcommand\\fR [\\fIflags\\fR] [\\fIarguments\\fR]\n")
	r.section("DESCRIPTION")
	r.paragraph("ctctl keeps Linux containers that behave like small servers, and brings them back as they were: memory,\n" +
		"processes, open files and disk of the same instant. A container is made from a template and boots that\n" +
		"template's init, or runs one command.")
	r.paragraph("Flags may stand anywhere before \"--\", those of ctctl itself too. Data goes to standard output, everything\n" +
		"for people to standard error.")
	r.section("COMMANDS")
	for _, c := range app.Commands {
		if !c.Hidden {
			r.item(fmt.Sprintf(`\fBctctl\-%s\fR(1)`, roffText(c.Name)), c.Usage)
		}
	}
	r.flags("OPTIONS", app.Flags)
	r.section("EXAMPLES")
	for _, name := range []string{"template", "create", "snapshot", "rollback"} {
		r.example(examples[name][0])
	}
	r.common()
	return r.b.String()
}

func commandPage(c *cli.Command) string {
	r := new(roff)
	r.head("ctctl-"+c.Name, c.Usage)
	r.section("SYNOPSIS")
	subs := c.Subcommands
	if len(subs) == 0 {
		subs = []*cli.Command{c}
	}
	for i, s := range subs {
		if i > 0 {
			r.b.WriteString(".br\n")
		}
		r.b.WriteString(synopsis(c, s) + "\n")
	}
	r.section("DESCRIPTION")
	if len(c.Subcommands) == 0 {
		r.paragraph(capital(c.Usage) + ".")
		r.paragraph(c.Description)
	}
	for _, s := range c.Subcommands {
		r.item(`\fB`+roffText(s.Name)+`\fR`, capital(s.Usage)+".\n"+s.Description)
	}
	r.flags("OPTIONS", c.Flags)
	if len(c.Flags) == 0 && len(c.Subcommands) == 0 {
		r.section("OPTIONS")
	}
	for _, s := range c.Subcommands {
		r.flags("OPTIONS OF "+strings.ToUpper(s.Name), s.Flags)
	}
	r.paragraph("Those of every command are in ctctl(1).")
	r.section("EXAMPLES")
	for _, e := range examples[c.Name] {
		r.example(e)
	}
	r.common()
	return r.b.String()
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func synopsis(c, s *cli.Command) string {
	line := `\fBctctl ` + roffText(c.Name)
	if s != c {
		line += " " + roffText(s.Name)
	}
	line += `\fR`
	if len(s.Flags) > 0 {
		line += ` [\fIflags\fR]`
	}
	if s.ArgsUsage != "" {
		line += " " + roffText(s.ArgsUsage)
	}
	return line
}

func (r *roff) example(e example) {
	if e.about != "" {
		r.paragraph(e.about)
	}
	fmt.Fprintf(&r.b, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", roffLines(e.line))
}

// common is what every page ends with.
func (r *roff) common() {
	r.section("EXIT STATUS")
	for _, e := range exitTable {
		r.item(fmt.Sprintf(`\fB%d\fR`, e.code), e.meaning)
	}
	r.section("FILES")
	for _, f := range [][2]string{
		{host.DefaultStateRoot, "What survives a reboot: containers, snapshots, templates, the pool."},
		{host.DefaultStateRoot + "/containers/NAME/config.json", "Configuration of a container, to be edited while it is stopped."},
		{host.DefaultStateRoot + "/containers/NAME/console.log", "What its console has shown."},
		{host.DefaultRunRoot, "What does not survive a reboot."},
	} {
		r.item(`\fI`+roffText(f[0])+`\fR`, f[1])
	}
	r.section("ENVIRONMENT")
	for _, e := range [][2]string{
		{"CTCTL_STATE_ROOT, CTCTL_RUN_ROOT, CTCTL_CRIU", "As --state-root, --run-root and --criu."},
		{"CTCTL_TRACE", "As --trace when it is 1."},
		{"CTCTL_STORAGE", "btrfs or dir: how a new state root keeps its volumes; an existing one stays as it is."},
		{"TERM", "On a dumb terminal progress is shown as lines. Colours are never used."},
	} {
		r.item(`\fB`+roffText(e[0])+`\fR`, e[1])
	}
	r.section("SEE ALSO")
	r.b.WriteString("\\fBctctl\\fR(1), \\fBcriu\\fR(8), \\fBmmdebstrap\\fR(1)\n")
}
