package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/urfave/cli/v2"
	"sigs.k8s.io/yaml"
)

// defaultConfigDir is where an admin keeps profiles.
const defaultConfigDir = "/etc/ctctl"

// profile is a set of limits with a name: what --profile stands for.
type profile struct {
	Name   string            `json:"name"`
	About  string            `json:"about,omitempty"`
	File   string            `json:"file,omitempty"` // "" is built in
	Limits map[string]string `json:"limits"`         // by flag, as ctctl set takes them

	changes []func(*quota.Limits)
}

// builtinProfiles may be replaced by files of the same name.
var builtinProfiles = map[string]map[string]string{
	"small":  {"about": "one small server", "cpus": "1", "memory": "512M", "pids": "512", "disk": "10G"},
	"medium": {"about": "a few servers", "cpus": "2", "memory": "2G", "pids": "2048", "disk": "40G"},
	"large":  {"about": "a whole machine's work", "cpus": "4", "memory": "8G", "pids": "8192", "disk": "160G"},
}

// apply sets what the profile names; the rest stays as it is.
func (p profile) apply(l *quota.Limits) error {
	for _, change := range p.changes {
		change(l)
	}
	return nil
}

// newProfile reads limits as the flags of ctctl set take them.
func newProfile(name, file string, said map[string]string) (profile, error) {
	p := profile{Name: name, File: file, Limits: map[string]string{}}
	where := "profile " + name
	if file != "" {
		where = file
	}
	for _, key := range slices.Sorted(maps.Keys(said)) {
		value := said[key]
		if key == "about" {
			p.About = value
			continue
		}
		i := slices.IndexFunc(limitFlags(), func(f cli.Flag) bool { return f.Names()[0] == key && key != "profile" })
		if i < 0 {
			return p, usageError{msg: fmt.Sprintf("%s: no such limit: %s", where, quoteWord(key)), hint: "ctctl set --help lists them; a profile names them like the flags, without dashes in front"}
		}
		change, err := readLimit(key, value)
		if err != nil {
			return p, usageError{msg: fmt.Sprintf("%s: %s: %v", where, key, err)}
		}
		p.Limits[key] = value
		p.changes = append(p.changes, change...)
	}
	return p, nil
}

// readLimit reads one limit; those of devices may have several, apart by spaces.
func readLimit(flag, value string) (changes []func(*quota.Limits), err error) {
	values := []string{value}
	if strings.HasPrefix(flag, "io-read") || strings.HasPrefix(flag, "io-write") {
		values = strings.Fields(value)
	}
	for _, p := range limitParsers {
		if p.flag != flag {
			continue
		}
		for _, v := range values {
			change, err := p.read(v)
			if err != nil {
				return nil, err
			}
			changes = append(changes, change)
		}
	}
	return changes, nil
}

func profileDir(c *cli.Context) string { return filepath.Join(c.String("config-dir"), "profiles") }

// profileNamed finds a profile; a file counts more than what is built in.
func profileNamed(c *cli.Context, name string) (profile, error) {
	if container.CheckName(name) != nil {
		return profile{}, misuse(c, "%s is no profile name: use a-z, 0-9 and '-'", quoteWord(name))
	}
	for _, ext := range []string{".json", ".yaml", ".yml"} {
		p, err := profileFile(name, filepath.Join(profileDir(c), name+ext))
		if !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
	}
	if said, ok := builtinProfiles[name]; ok {
		return newProfile(name, "", said)
	}
	return profile{}, usageError{msg: "no such profile: " + name, hint: "ctctl profile list shows what there is; own ones are files in " + profileDir(c)}
}

// maxProfileBytes bounds a file.
const maxProfileBytes = 64 << 10

func profileFile(name, path string) (profile, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return profile{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxProfileBytes {
		return profile{}, usageError{msg: path + ": is no file of up to 64 KiB"}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return profile{}, err
	}
	var said map[string]any
	if err := yaml.UnmarshalStrict(b, &said); err != nil { // json is yaml too
		return profile{}, usageError{msg: fmt.Sprintf("%s: %v", path, err)}
	}
	text := map[string]string{}
	for k, v := range said {
		switch v := v.(type) {
		case string, bool, float64:
			text[k] = scalar(v)
		case []any:
			var words []string
			for _, e := range v {
				words = append(words, scalar(e))
			}
			text[k] = strings.Join(words, " ")
		default:
			return profile{}, usageError{msg: fmt.Sprintf("%s: %s is no single value", path, quoteWord(k))}
		}
	}
	return newProfile(name, path, text)
}

// scalar is a value of YAML as it was written: a large number without an exponent.
func scalar(v any) string {
	if n, ok := v.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// profileNames are those of files and those built in, sorted.
func profileNames(dir string) ([]string, error) {
	names := map[string]bool{}
	for n := range builtinProfiles {
		names[n] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext)
		if slices.Contains([]string{".json", ".yaml", ".yml"}, ext) && container.CheckName(name) == nil {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func profileCommand() *cli.Command {
	return &cli.Command{
		Name:  "profile",
		Usage: "list and show sets of limits for create and set --profile",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list profiles",
				Description: "Own profiles are files NAME.json or NAME.yaml in the directory profiles of the configuration\n" +
					"directory, with the flags of ctctl set for members: memory: 1G. One of a built-in name replaces it.",
				Action: runProfileList,
			},
			{Name: "show", Usage: "show a profile", ArgsUsage: "PROFILE", Action: runProfileShow},
		},
	}
}

var profileColumns = []column[profile]{
	{name: "name", text: func(p profile) string { return p.Name }, compare: func(a, b profile) int { return cmp.Compare(a.Name, b.Name) }},
	{name: "limits", text: profile.summary},
	{name: "about", text: func(p profile) string { return cmp.Or(p.About, "-") }},
	{name: "file", text: func(p profile) string { return cmp.Or(p.File, "built in") }},
}

// summary lists the limits in the order of the flags.
func (p profile) summary() string {
	var parts []string
	for _, f := range limitFlags() {
		if v, ok := p.Limits[f.Names()[0]]; ok {
			parts = append(parts, f.Names()[0]+" "+v)
		}
	}
	return strings.Join(parts, ", ")
}

func runProfileList(c *cli.Context) error {
	if _, err := arguments(c, 0, 0); err != nil {
		return err
	}
	names, err := profileNames(profileDir(c))
	if err != nil {
		return err
	}
	l := listing[profile]{kind: "Profile", columns: profileColumns, id: func(p profile) string { return p.Name }}
	for _, n := range names {
		p, err := profileNamed(c, n)
		if err != nil {
			return err
		}
		l.items = append(l.items, p)
	}
	return emit(c, l)
}

func runProfileShow(c *cli.Context) error {
	args, err := arguments(c, 1, 1)
	if err != nil {
		return err
	}
	p, err := profileNamed(c, args[0])
	if err != nil {
		return err
	}
	return emit(c, listing[profile]{kind: "Profile", columns: profileColumns, items: []profile{p}, id: func(p profile) string { return p.Name }, single: true})
}
