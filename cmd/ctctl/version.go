package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/urfave/cli/v2"
)

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the versions of ctctl and of what it uses",
		Action: func(c *cli.Context) error {
			if _, err := arguments(c, 0, 0); err != nil {
				return err
			}
			v := versionView{Name: "ctctl", Version: version, Commit: commit(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			v.CRIU, v.CRIUPath = criuFound(c)
			return emit(c, versionListing(v))
		},
	}
}

type versionView struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	CRIU     string `json:"criu"`
	CRIUPath string `json:"criu_path,omitempty"`
}

func versionListing(v versionView) listing[versionView] {
	return listing[versionView]{
		kind: "Version", single: true, items: []versionView{v},
		id: func(v versionView) string { return v.Version },
		columns: []column[versionView]{
			{name: "version", text: func(v versionView) string { return v.Version }},
			{name: "commit", text: func(v versionView) string { return v.Commit }},
			{name: "go", text: func(v versionView) string { return v.Go }},
			{name: "platform", text: func(v versionView) string { return v.Platform }},
			{name: "criu", text: func(v versionView) string { return v.CRIU }},
			{name: "criu_path", text: func(v versionView) string { return v.CRIUPath }},
		},
	}
}

// builtFrom is set at build time where the go command is not to look for itself.
var builtFrom string

// commit is what the program was built from, when it was built in a checkout.
func commit() string {
	if builtFrom != "" {
		return builtFrom
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	return rev + dirty
}

// criuFound is the version and path of CRIU, or why there is none.
func criuFound(c *cli.Context) (found, path string) {
	e, err := criu.Find(c.String("criu"))
	if err != nil {
		return fmt.Sprintf("none: %v", err), ""
	}
	v, err := e.Version(c.Context)
	if err != nil {
		return fmt.Sprintf("none: %v", err), e.Binary
	}
	return v.String(), e.Binary
}
