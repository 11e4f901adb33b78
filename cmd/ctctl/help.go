package main

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// The help of commands, in the words of this program. What the library would say
// of flags and examples comes ready in UsageText.
const (
	commandHelp = `{{.HelpName}} - {{.Usage}}

usage: {{.HelpName}} [flags]{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{.UsageText}}`

	familyHelp = `{{.HelpName}} - {{.Usage}}

usage: {{.HelpName}} COMMAND …

commands:{{range .VisibleCommands}}
   {{.Name}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{"\t"}}{{.Usage}}{{end}}
{{.UsageText}}`

	appHelp = `ctctl - {{.Usage}}

usage: ctctl [flags] COMMAND [flags] [arguments]

commands:{{range .VisibleCommands}}
   {{.Name}}{{"\t"}}{{.Usage}}{{end}}
{{.UsageText}}
ctctl COMMAND --help explains a command.
`
)

// flagLines explain flags, in two columns.
func flagLines(title string, flags []cli.Flag) string {
	if len(flags) == 0 {
		return ""
	}
	width := 0
	flags = slices.DeleteFunc(slices.Clone(flags), hidden)
	for _, f := range flags {
		width = max(width, utf8.RuneCountInString(flagTerm(f, plainTerm)))
	}
	var b strings.Builder
	b.WriteString("\n" + title + ":\n")
	for _, f := range flags {
		term := flagTerm(f, plainTerm)
		b.WriteString("   " + term + strings.Repeat(" ", width-utf8.RuneCountInString(term)+2) + flagText(f) + "\n")
	}
	return b.String()
}

// hidden flags are another spelling of one that is shown.
func hidden(f cli.Flag) bool {
	v, ok := f.(cli.VisibleFlag)
	return ok && !v.IsVisible()
}

// exampleLines are the examples of a command as its help shows them.
func exampleLines(command string) string {
	var b strings.Builder
	for _, e := range examples[command] {
		b.WriteString("   " + e.line)
		if e.about != "" {
			b.WriteString("\n      " + e.about)
		}
		b.WriteString("\n")
	}
	if b.Len() == 0 {
		return ""
	}
	return "\nexamples:\n" + b.String()
}

// termStyle marks the words of a flag.
type termStyle struct{ name, value func(string) string }

var plainTerm = termStyle{
	name:  func(s string) string { return s },
	value: func(s string) string { return s },
}

// flagTerm is "-e, --env KEY=VALUE".
func flagTerm(f cli.Flag, style termStyle) string {
	var short, long []string
	for _, n := range f.Names() {
		if len(n) == 1 {
			short = append(short, style.name("-"+n))
		} else if len(long) == 0 { // further ones are what other tools call it
			long = append(long, style.name("--"+n))
		}
	}
	term := strings.Join(append(short, long...), ", ")
	if d, ok := f.(cli.DocGenerationFlag); ok && takesValue(f) {
		value := "VALUE"
		if _, rest, ok := strings.Cut(d.GetUsage(), "`"); ok {
			value, _, _ = strings.Cut(rest, "`")
		}
		term += " " + style.value(value)
	}
	return term
}

// flagText is what a flag is for.
func flagText(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	text := strings.ReplaceAll(d.GetUsage(), "`", "")
	if def := d.GetDefaultText(); takesValue(f) && d.GetValue() != "" && def != "" && !strings.Contains(text, "(default") {
		text += " (default: " + strings.Trim(def, `"`) + ")"
	}
	if env := d.GetEnvVars(); len(env) > 0 {
		text += "; also $" + strings.Join(env, ", $")
	}
	return text
}
