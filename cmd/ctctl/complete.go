package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/template"
	"github.com/urfave/cli/v2"
)

// inventory is what there is to choose from. What can't be read is not offered:
// a completion says nothing of errors, mounts nothing and needs no root.
type inventory interface {
	containers() []container.Info
	templates() []string
	snapshots(name string) []string
}

// candidate is a word that may come next.
type candidate struct{ word, about string }

// offer is what a shell is to propose: words, and files or directories.
type offer struct {
	words []candidate
	files string // "", "file" or "dir"
}

func completeCommand() *cli.Command {
	return &cli.Command{
		Name: "__complete", Hidden: true, Usage: "print what may come next; for the scripts of ctctl completion",
		Action: func(c *cli.Context) error {
			args, words, _ := tail(c)
			shell := ""
			if len(args) > 0 {
				shell = args[0]
			}
			if len(words) == 0 {
				words = []string{""}
			}
			o, strip := complete(newApp(), words, shell == "bash", diskInventory)
			for _, w := range o.words {
				line := strings.TrimPrefix(w.word, strip)
				if w.about != "" {
					line += "\t" + printable(w.about)
				}
				if _, err := fmt.Fprintln(c.App.Writer, line); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintln(c.App.Writer, ":"+cmp.Or(o.files, "none"))
			return err
		},
	}
}

// complete proposes what the last of words may become. strip is what the shell
// already has of the word before its own idea of one: bash parts words at = and :.
func complete(app *cli.App, words []string, parted bool, open func(state, run string) inventory) (o offer, strip string) {
	if parted {
		words = rejoin(words)
	}
	current := words[len(words)-1]
	a, pending, ok := readSoFar(app, words[:len(words)-1])
	if !ok {
		return offer{}, ""
	}
	inv := open(a.global("state-root", "CTCTL_STATE_ROOT", host.DefaultStateRoot), a.global("run-root", "CTCTL_RUN_ROOT", host.DefaultRunRoot))
	prefix := ""
	switch name, value, eq := strings.Cut(strings.TrimPrefix(current, "--"), "="); {
	case pending != "":
		o = a.values(pending, inv)
	case strings.HasPrefix(current, "--") && eq && !a.split:
		o = a.values(name, inv)
		prefix = strings.TrimSuffix(current, value)
	case strings.HasPrefix(current, "-") && !a.split && !a.foreign(current):
		o = a.flagNames()
	case a.leaf == nil:
		o = a.commandNames()
	default:
		o = a.positional(current, inv)
	}
	for i := range o.words {
		o.words[i].word = prefix + o.words[i].word
	}
	o.words = slices.DeleteFunc(o.words, func(c candidate) bool { return !strings.HasPrefix(c.word, current) })
	if parted {
		strip = current[:strings.LastIndexAny(current, "=:")+1]
	}
	return o, strip
}

// rejoin undoes what bash does to words with = and : in them.
func rejoin(words []string) []string {
	var out []string
	glue := false
	for i, w := range words {
		switch {
		case i > 0 && (w == "=" || w == ":") && len(out) > 0:
			out[len(out)-1] += w
			glue = true
		case glue:
			out[len(out)-1] += w
			glue = false
		default:
			out = append(out, w)
		}
	}
	return out
}

// readSoFar takes the words before the current one apart. pending is the flag
// whose value comes now; without ok the words make no sense.
func readSoFar(app *cli.App, words []string) (a *arranged, pending string, ok bool) {
	a = &arranged{app: app, cmds: app.Commands}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if i == len(words)-1 && len(w) > 1 && w[0] == '-' && w != "--" && !strings.Contains(w, "=") {
			name := strings.TrimLeft(w, "-")
			if !strings.HasPrefix(w, "--") {
				name = name[len(name)-1:]
			}
			if f, _ := a.find(name); f != nil && takesValue(f) {
				return a, f.Names()[0], true
			}
		}
		used, stop, err := a.word(w, words[i+1:])
		if err != nil {
			return a, "", false
		}
		i += used
		if stop {
			a.rest(words[i+1:])
			break
		}
	}
	return a, "", true
}

func (a *arranged) global(flag, env, def string) string {
	value := ""
	for _, g := range a.globs {
		if v, ok := strings.CutPrefix(g, "--"+flag+"="); ok {
			value = v
		}
	}
	return cmp.Or(value, os.Getenv(env), def)
}

func (a *arranged) commandNames() (o offer) {
	for _, c := range a.cmds {
		if !c.Hidden {
			o.words = append(o.words, candidate{c.Name, c.Usage})
		}
	}
	if len(a.path) == 0 {
		o.words = append(o.words, candidate{"help", "explain a command"})
	}
	return o
}

func (a *arranged) flagNames() (o offer) {
	var flags []cli.Flag
	if a.leaf != nil {
		flags = append(flags, a.leaf.Flags...)
	}
	for _, f := range append(flags, a.app.Flags...) {
		if hidden(f) {
			continue
		}
		about := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			about = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		o.words = append(o.words, candidate{"--" + f.Names()[0], about})
	}
	o.words = append(o.words, candidate{"--help", "explain the command"})
	return o
}

// values proposes values of a flag.
func (a *arranged) values(flag string, inv inventory) (o offer) {
	f, _ := a.find(flag)
	if f == nil {
		return o
	}
	switch f.Names()[0] {
	case "format":
		return words(formats...)
	case "template":
		return words(inv.templates()...)
	case "profile-checkpointable":
		return words("on", "off")
	case "userns":
		return words("auto", "host")
	case "restart":
		return words("no", "on-failure", "always")
	case "ip":
		return words("auto")
	case "onboot":
		return words("no", "yes")
	case "profile":
		return a.profiles()
	case "ip-del":
		return a.containersOwn(inv, func(c container.Config) (out []string) {
			for _, p := range c.Network.Addresses() {
				out = append(out, p.Addr().String())
			}
			return out
		})
	case "nic", "nic-del":
		return a.containersOwn(inv, func(c container.Config) (out []string) {
			for _, i := range c.Network.Interfaces {
				out = append(out, i.Name)
			}
			return out
		})
	case "suite":
		return words("bookworm", "trixie", "forky", "sid")
	case "for":
		if a.name() == "doctor" {
			return words(purposes()...)
		}
	case "signal":
		return words("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "RTMIN+3")
	case "sort":
		if a.name() == "top" {
			return words(topColumnNames()...)
		}
		return words(columnNames()...)
	case "columns":
		return words(columnNames()...)
	case "state-root", "run-root", "config-dir", "dir":
		return offer{files: "dir"}
	case "criu":
		return offer{files: "file"}
	}
	return o
}

func words(list ...string) (o offer) {
	for _, w := range list {
		o.words = append(o.words, candidate{word: w})
	}
	return o
}

// profiles are those that can be read.
func (a *arranged) profiles() offer {
	names, err := profileNames(filepath.Join(a.global("config-dir", "CTCTL_CONFIG_DIR", defaultConfigDir), "profiles"))
	if err != nil {
		return offer{}
	}
	return words(names...)
}

// containersOwn proposes what the container that was named has.
func (a *arranged) containersOwn(inv inventory, of func(container.Config) []string) (o offer) {
	for _, i := range inv.containers() {
		if slices.Contains(a.args, i.Config.Name) {
			o = words(of(i.Config)...)
		}
	}
	return o
}

// fits says which containers a command is for; those not named take any.
var fits = map[string][]container.Status{
	"start":   {container.Stopped},
	"stop":    {container.Running, container.Paused},
	"restart": {container.Running, container.Paused, container.Stopped},
	"pause":   {container.Running},
	"unpause": {container.Paused},
	"kill":    {container.Running, container.Paused},
	"exec":    {container.Running}, "enter": {container.Running}, "runscript": {container.Running},
	"console": {container.Running, container.Paused},
	"suspend": {container.Running, container.Paused},
	"resume":  {container.Suspended},
	"rename":  {container.Stopped, container.Suspended},
}

// positional proposes the next argument.
func (a *arranged) positional(current string, inv inventory) offer {
	name, n := a.name(), len(a.args)
	switch {
	case a.split, a.foreign(current) && name == "runscript":
		if name == "runscript" {
			return offer{files: "file"}
		}
		return offer{} // a command inside, or its arguments
	case name == "cp":
		return a.copyEnds(current, inv)
	case name == "completion":
		return words("bash", "zsh", "fish")
	case name == "snapshot umount":
		return offer{files: "dir"}
	case name == "profile show":
		return a.profiles()
	case name == "template delete":
		return words(inv.templates()...)
	case name == "template import" && n == 1, name == "runscript" && n == 1:
		return offer{files: "file"}
	case name == "snapshot mount" && n == 2:
		return offer{files: "dir"}
	case slices.Contains([]string{"snapshot delete", "snapshot mount", "rollback"}, name) && n == 1:
		return words(inv.snapshots(a.args[0])...)
	case a.leaf.ArgsUsage == manyNames, takesContainer(a.leaf) && n == 0:
		return a.names(inv)
	}
	return offer{}
}

// takesContainer says whether a command's first argument is a container that there is.
func takesContainer(c *cli.Command) bool {
	return c.Name != "create" && strings.HasPrefix(strings.Trim(c.ArgsUsage, "["), "NAME") ||
		c.Name == "create" && c.ArgsUsage == "NAME [SNAP]"
}

func (a *arranged) names(inv inventory) (o offer) {
	if a.path[0] == "template" {
		return o
	}
	want := fits[a.name()]
	for _, i := range inv.containers() {
		if (want == nil || slices.Contains(want, i.Status)) && !slices.Contains(a.args, i.Config.Name) {
			o.words = append(o.words, candidate{i.Config.Name, string(i.Status)})
		}
	}
	return o
}

func (a *arranged) copyEnds(current string, inv inventory) (o offer) {
	if len(a.args) > 1 || container.ParsePlace(current).Container != "" {
		return o
	}
	for _, i := range inv.containers() {
		o.words = append(o.words, candidate{i.Config.Name + ":", string(i.Status)})
	}
	o.files = "file"
	return o
}

// onDisk reads a state root without opening the host.
type onDisk struct {
	cts   *container.Manager
	snaps *checkpoint.Manager
	tmpl  template.Manager
}

func diskInventory(state, run string) inventory {
	cts := &container.Manager{StateRoot: state, RunRoot: run}
	return onDisk{
		cts: cts, snaps: &checkpoint.Manager{StateRoot: state, Containers: cts}, tmpl: template.Manager{Dir: filepath.Join(state, "templates")},
	}
}

func (d onDisk) containers() []container.Info {
	list, _ := d.cts.List(context.Background()) // those that can be read
	return list
}

func (d onDisk) templates() (names []string) {
	list, _ := d.tmpl.List(context.Background())
	for _, t := range list {
		names = append(names, t.Name)
	}
	return names
}

func (d onDisk) snapshots(name string) (names []string) {
	list, _, _ := d.snaps.List(context.Background(), name)
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}
