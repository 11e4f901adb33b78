package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// The command line's grammar, which is that of OpenVZ's and podman's tools and
// not the library's, which takes flags before arguments only: flags, those of
// ctctl itself too, stand anywhere before "--"; short ones may be joined (-it)
// and have their value attached (-uroot).

// tails says where, besides behind "--", the foreign words of a command begin that
// takes some: another command for instance. Those not named take none.
var tails = map[string]foreign{
	"exec":       {after: 1, flags: true},
	"runscript":  {after: 2},
	"create":     {after: -1},
	"__complete": {after: -1},
}

type foreign struct {
	after int  // so many arguments; negative: only behind "--"
	flags bool // flags that stand right behind these are the command's own yet
}

// arranged is a command line taken apart.
type arranged struct {
	app   *cli.App
	cmds  []*cli.Command // where the next word of the command is looked up; none at its end
	path  []string       // words of the command
	flags []string       // its own, as --name=value
	globs []string       // those of ctctl
	leaf  *cli.Command
	args  []string
	data  []string // what follows "--", or the arguments
	split bool     // data is there, maybe empty
	help  bool
}

// arrange puts a command line into the order that the library understands.
func arrange(app *cli.App, words []string) ([]string, error) {
	a := &arranged{app: app, cmds: app.Commands}
	for i := 0; i < len(words); i++ {
		used, stop, err := a.word(words[i], words[i+1:])
		if err != nil {
			return nil, err
		}
		i += used
		if stop {
			a.rest(words[i+1:])
			break
		}
	}
	return a.words()
}

// word takes one word, and used of those that follow; stop says that the rest is
// no longer ours.
func (a *arranged) word(w string, next []string) (used int, stop bool, err error) {
	switch {
	case a.foreign(w):
		a.split, a.data = true, append([]string{w}, next...)
		return len(next), false, nil
	case w == "--":
		if a.leaf == nil {
			return 0, false, a.incomplete()
		}
		return 0, true, nil
	case strings.HasPrefix(w, "--"):
		used, err = a.long(w[2:], next)
		return used, false, err
	case len(w) > 1 && w[0] == '-':
		used, err = a.short(w[1:], next)
		return used, false, err
	case a.leaf == nil:
		return 0, false, a.descend(w)
	}
	a.args = append(a.args, w)
	return 0, false, nil
}

// foreign says whether w, no "--", is where the foreign words begin.
func (a *arranged) foreign(w string) bool {
	t, ok := tails[a.name()]
	if !ok || a.leaf == nil || t.after < 0 || len(a.args) < t.after || w == "--" {
		return false
	}
	return !t.flags || len(w) < 2 || w[0] != '-'
}

// rest takes what follows "--".
func (a *arranged) rest(words []string) {
	t, ok := tails[a.name()]
	if !ok {
		a.args = append(a.args, words...)
		return
	}
	missing := max(0, min(t.after-len(a.args), len(words)))
	a.args = append(a.args, words[:missing]...)
	a.split, a.data = true, words[missing:]
}

func (a *arranged) name() string { return strings.Join(a.path, " ") }

// descend takes the next word of the command.
func (a *arranged) descend(w string) error {
	if len(a.path) == 0 && w == "help" {
		a.help = true
		return nil
	}
	for _, c := range a.cmds {
		if !slices.Contains(c.Names(), w) {
			continue
		}
		a.path = append(a.path, c.Name)
		a.cmds = c.Subcommands
		if len(c.Subcommands) == 0 {
			a.leaf = c
		}
		return nil
	}
	e := usageError{msg: fmt.Sprintf("no such command: %s", strings.TrimSpace(a.name()+" "+quoteWord(w)))}
	if near := nearest(w, a.cmds); near != "" {
		e.hint = "did you mean ctctl " + strings.TrimSpace(a.name()+" "+near) + "?"
	} else {
		e.hint = strings.Join(strings.Fields("ctctl help "+a.name()+" lists the commands"), " ")
	}
	return e
}

func (a *arranged) incomplete() error {
	var names []string
	for _, c := range a.cmds {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	if len(a.path) == 0 {
		return usageError{msg: "say which command", hint: "ctctl help lists them"}
	}
	return usageError{msg: a.name() + ": say what to do: " + strings.Join(names, ", "), hint: "ctctl " + a.name() + " --help explains it"}
}

// find looks a flag up in the command, then in ctctl.
func (a *arranged) find(name string) (f cli.Flag, global bool) {
	if a.leaf != nil {
		for _, f := range a.leaf.Flags {
			if slices.Contains(f.Names(), name) {
				return f, false
			}
		}
	}
	for _, f := range a.app.Flags {
		if slices.Contains(f.Names(), name) {
			return f, true
		}
	}
	return nil, false
}

func (a *arranged) add(f cli.Flag, global bool, value string) {
	w := "--" + f.Names()[0] + "=" + value
	if global {
		a.globs = append(a.globs, w)
		return
	}
	a.flags = append(a.flags, w)
}

func (a *arranged) long(w string, next []string) (used int, err error) {
	name, value, has := strings.Cut(w, "=")
	if name == "help" && !has {
		a.help = true
		return 0, nil
	}
	f, global := a.find(name)
	switch {
	case f == nil || len(name) == 1:
		return 0, a.unknown("--" + name)
	case !takesValue(f) && has:
		if _, err := strconv.ParseBool(value); err != nil {
			return 0, a.usage("--%s is given or not, it has no value %s", name, quoteWord(value))
		}
	case !takesValue(f):
		value = "true"
	case !has && len(next) == 0:
		return 0, a.usage("--%s wants a value", name)
	case !has:
		value, used = next[0], 1
	}
	a.add(f, global, value)
	return used, nil
}

func (a *arranged) short(letters string, next []string) (used int, err error) {
	for i, r := range letters {
		name, rest := string(r), letters[i+len(string(r)):]
		if name == "h" {
			a.help = true
			continue
		}
		f, global := a.find(name)
		if f == nil {
			return 0, a.unknown("-" + name)
		}
		if !takesValue(f) {
			a.add(f, global, "true")
			continue
		}
		switch {
		case rest != "":
			rest = strings.TrimPrefix(rest, "=")
		case len(next) == 0:
			return 0, a.usage("-%s wants a value", name)
		default:
			rest, used = next[0], 1
		}
		a.add(f, global, rest)
		return used, nil
	}
	return 0, nil
}

func takesValue(f cli.Flag) bool {
	_, plain := f.(*cli.BoolFlag)
	return !plain
}

func (a *arranged) usage(format string, args ...any) usageError {
	e := usageError{msg: fmt.Sprintf(format, args...), hint: "ctctl help lists the commands"}
	if len(a.path) > 0 {
		e.msg = a.name() + ": " + e.msg
		e.hint = "ctctl " + a.name() + " --help lists the flags"
	}
	e.command = a.name()
	return e
}

func (a *arranged) unknown(flag string) error {
	if a.leaf == nil {
		return a.usage("no such flag: %s; flags of a command come after it", quoteWord(flag))
	}
	if cover := ubc[strings.TrimLeft(flag, "-")]; cover != "" && (a.name() == "set" || a.name() == "create") {
		return usageError{msg: a.name() + ": " + flag + " is a beancounter of OpenVZ: " + cover, command: a.name()}
	}
	e := a.usage("no such flag: %s", quoteWord(flag))
	if near := nearFlags(strings.TrimLeft(flag, "-"), a.leaf.Flags); len(near) > 0 {
		e.hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return e
}

// words gives the command line back: flags of ctctl, the command, its flags, "--",
// arguments, and "--" again before the data.
func (a *arranged) words() ([]string, error) {
	out := append([]string{a.app.Name}, a.globs...)
	out = append(out, a.path...)
	if a.help {
		return append(out, "--help"), nil
	}
	if a.leaf == nil {
		if len(a.path) > 0 {
			return nil, a.incomplete()
		}
		return out, nil
	}
	out = append(append(out, a.flags...), "--")
	out = append(out, a.args...)
	if a.split {
		out = append(append(out, "--"), a.data...)
	}
	return out, nil
}

// tail parts a command's arguments from its data.
func tail(c *cli.Context) (args, data []string, split bool) {
	all := c.Args().Slice()
	if i := slices.Index(all, "--"); i >= 0 {
		return all[:i], all[i+1:], true
	}
	return all, nil, false
}

// quoteWord shows a word of the user's, bounded, so that a pasted file does not
// fill the terminal.
func quoteWord(w string) string {
	const most = 60
	if len(w) > most {
		w = w[:most] + "…"
	}
	return strconv.Quote(w)
}
