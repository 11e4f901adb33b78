package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestEveryCommandHasAManPageAndExamples(t *testing.T) {
	pages := manPages(newApp())
	count := 1
	for _, c := range newApp().Commands {
		if c.Hidden {
			continue
		}
		count++
		page := pages["ctctl-"+c.Name+".1"]
		if page == "" {
			t.Errorf("no page of %s", c.Name)
			continue
		}
		if len(examples[c.Name]) == 0 {
			t.Errorf("no example of %s", c.Name)
		}
		for _, section := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS", "FILES", "ENVIRONMENT"} {
			if !strings.Contains(page, "\n.SH "+section+"\n") {
				t.Errorf("%s has no section %s", c.Name, section)
			}
		}
		for _, f := range allFlags(c) {
			if !strings.Contains(page, roffText("--"+f.Names()[0])) {
				t.Errorf("the page of %s lacks --%s", c.Name, f.Names()[0])
			}
		}
	}
	if len(pages) != count {
		t.Errorf("%d pages, want %d", len(pages), count)
	}
	for _, f := range newApp().Flags {
		if !strings.Contains(pages["ctctl.1"], roffText("--"+f.Names()[0])) {
			t.Errorf("ctctl.1 lacks --%s", f.Names()[0])
		}
	}
}

func allFlags(c *cli.Command) []cli.Flag {
	flags := c.Flags
	for _, s := range c.Subcommands {
		flags = append(flags, s.Flags...)
	}
	return flags
}

func TestExamplesAreCommandLinesThatAreUnderstood(t *testing.T) {
	for name, list := range examples {
		for _, e := range list {
			line, _, _ := strings.Cut(e.line, " | ")
			line, _, _ = strings.Cut(line, " > ")
			words := strings.Fields(strings.ReplaceAll(line, "'PHP 8.4'", "text"))
			if words[0] != "ctctl" || words[1] != name {
				t.Errorf("example of %s: %s", name, e.line)
				continue
			}
			if _, err := arrange(newApp(), words[1:]); err != nil {
				t.Errorf("%s: %v", e.line, err)
			}
		}
	}
}

func TestRoffOfTextCanNotBecomeARequest(t *testing.T) {
	for in, want := range map[string]string{
		"a-b":         `a\-b`,
		".TH x":       `\&.TH x`,
		"it's":        `it\(aqs`,
		"'so":         `\(aqso`,
		`C:\x`:        `C:\ex`,
		"one\n.two\n": "one\n\\&.two",
	} {
		if got := roffLines(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestManPagesRenderWithoutComplaint(t *testing.T) {
	man, err := exec.LookPath("groff")
	if err != nil {
		t.Skip(err)
	}
	for name, page := range manPages(newApp()) {
		cmd := exec.CommandContext(t.Context(), man, "-man", "-Tutf8", "-ww", "-z", "-K", "utf8")
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}
