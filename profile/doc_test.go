package profile

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the table into the documentation")

const (
	document = "../docs/profile.md"
	begin    = "<!-- the table: go test ./profile -update -->\n"
	end      = "<!-- end of the table -->\n"
)

func TestTheDocumentationHasTheTable(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(raw), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	if *update {
		if err := os.WriteFile(document, []byte(before+begin+markdown()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(markdown(), got); diff != "" {
		t.Errorf("%s is not the table (-table +document); go test ./profile -update:\n%s", document, diff)
	}
}

func markdown() string {
	var b strings.Builder
	kind := Kind("")
	for _, e := range Entries() {
		if e.Kind != kind {
			kind = e.Kind
			fmt.Fprintf(&b, "\n### %s\n\n| entry | of | what | without it | behind it |\n|---|---|---|---|---|\n", title(kind))
		}
		name := "`" + e.Name + "`"
		if e.Always {
			name += " *"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, forWhom(e), what(e), e.Reason, e.Limit)
	}
	b.WriteString("\n")
	return b.String()
}

func title(k Kind) string {
	s := string(k)
	return strings.ToUpper(s[:1]) + s[1:]
}

func forWhom(e Entry) string {
	who := ""
	switch len(e.Inits) {
	case len(everything):
		who = "all"
	case len(inits):
		who = "inits"
	default:
		var names []string
		for _, i := range e.Inits {
			names = append(names, string(i))
		}
		who = strings.Join(names, ", ")
	}
	if e.HostUsers {
		who += ", `--userns=host`"
	}
	switch {
	case e.Since > 0 && e.Until > 0:
		who += fmt.Sprintf(" %d–%d", e.Since, e.Until)
	case e.Since > 0:
		who += fmt.Sprintf(" ≥ %d", e.Since)
	case e.Until > 0:
		who += fmt.Sprintf(" ≤ %d", e.Until)
	}
	return who
}

func what(e Entry) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	for _, v := range e.Env {
		add("`%s`", v)
	}
	for _, m := range e.Mounts {
		add("%s on `%s`", m.Type, m.Destination)
	}
	for _, f := range e.Files {
		switch {
		case f.Program:
			add("`%s`, a program", f.Path)
		case f.Link != "":
			add("`%s`", strings.TrimPrefix(f.Path, "systemd/system/"))
		default:
			section, settings, _ := strings.Cut(strings.TrimSpace(f.Text), "\n")
			add("%s `%s` in `%s`", section, strings.ReplaceAll(settings, "\n", "`, `"), f.Path)
		}
	}
	for _, r := range e.Rules {
		add("`%s`%s: %s", r.Call, onlyWith(r.Args), errnoName(r))
	}
	for _, c := range append(e.Capabilities, e.Namespaces...) {
		add("%s", strings.TrimPrefix(c, "CAP_"))
	}
	if e.Delegate {
		add("in cgroup2 a cgroup `%s` below the container's is given to the container's root", Leaf)
	}
	return strings.Join(parts, ", ")
}

func onlyWith(args []Arg) string {
	var parts []string
	for _, a := range args {
		how := fmt.Sprintf("argument %d is %d", a.Index+1, a.Value)
		if a.AnyBit {
			how = fmt.Sprintf("flags %#x", a.Value)
		}
		parts = append(parts, how)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

var errnoNames = map[string]string{
	"operation not permitted": "EPERM", "function not implemented": "ENOSYS", "invalid argument": "EINVAL", "protocol not available": "ENOPROTOOPT",
}

func errnoName(r Rule) string { return errnoNames[r.Errno.Error()] }
