package arch

import (
	"strings"
	"testing"
)

// source parses text as the file at path.
func source(t *testing.T, path, text string) goFile {
	t.Helper()
	f, err := parse(path, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// wantSays checks that the complaints say want, or that there are none.
func wantSays(t *testing.T, complaints []string, want string) {
	t.Helper()
	got := strings.Join(complaints, "\n")
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLayerRule(t *testing.T) {
	tests := map[string]struct{ path, imports, want string }{
		"down":                        {"host/host.go", module + "container", ""},
		"up":                          {"container/a.go", module + "host", "layer 2 must not import layer 5"},
		"sideways":                    {"container/a.go", module + "template", "layer 2 must not import layer 2"},
		"sideways in a test":          {"container/a_test.go", module + "template", ""},
		"up in a test":                {"container/a_test.go", module + "host", "layer 2 must not import layer 5"},
		"driver to contract":          {"storage/btrfs/a.go", module + "storage", ""},
		"contract to driver":          {"storage/a.go", module + "storage/btrfs", "layer 0 must not import layer 1"},
		"driver to driver":            {"storage/btrfs/a.go", module + "storage/dir", "layer 1 must not import layer 1"},
		"a private part":              {"container/a.go", module + "container/internal/x", ""},
		"a private part of another":   {"host/a.go", module + "container/internal/x", ""},
		"up from a private part":      {"container/internal/x/a.go", module + "host", "layer 2 must not import layer 5"},
		"a package without layer":     {"strange/a.go", "fmt", `"strange" has no layer`},
		"of a package without layer":  {"host/a.go", module + "strange", "it has no layer"},
		"the module's root":           {"a.go", "fmt", `package "" has no layer`},
		"command":                     {"cmd/ctctl/main.go", module + "host", ""},
		"lowest to std":               {"internal/undo/a.go", "encoding/json", ""},
		"lowest to x/sys":             {"internal/statefile/a.go", "golang.org/x/sys/unix", ""},
		"lowest to another module":    {"internal/undo/a.go", "golang.org/x/sync/errgroup", "standard library and golang.org/x/sys only"},
		"lowest in a test":            {"internal/undo/a_test.go", "github.com/google/go-cmp/cmp", ""},
		"lowest to lowest":            {"internal/undo/a.go", module + "internal/statefile", "layer -1 must not import layer -1"},
		"testutil to another module":  {"internal/testutil/a.go", "github.com/google/go-cmp/cmp", "only"},
		"testutil to statefile":       {"internal/testutil/a.go", module + "internal/statefile", ""},
		"testutil in a test":          {"internal/statefile/a_test.go", module + "internal/testutil", ""},
		"testutil in the product":     {"host/a.go", module + "internal/testutil", "for tests only"},
		"testutil in the suite":       {"storage/storagetest/a.go", module + "internal/testutil", ""},
		"suite in a test":             {"storage/dir/a_test.go", module + "storage/storagetest", ""},
		"suite in a test of contract": {"storage/a_test.go", module + "storage/storagetest", ""},
		"suite in the product":        {"host/a.go", module + "storage/storagetest", "for tests only"},
		"suite to contract":           {"storage/storagetest/a.go", module + "storage", ""},
		"tools":                       {"tools/tools.go", "mvdan.cc/gofumpt", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := source(t, tt.path, "package x\nimport _ \""+tt.imports+"\"\n")
			wantSays(t, layerComplaints(f), tt.want)
		})
	}
}

func TestDoorRule(t *testing.T) {
	tests := map[string]struct{ path, imports, want string }{
		"through the door":   {"internal/criu/a.go", "github.com/checkpoint-restore/go-criu/v7/rpc", ""},
		"beside it":          {"checkpoint/a.go", "github.com/checkpoint-restore/go-criu/v7/rpc", "only internal/criu may"},
		"beside it, a test":  {"checkpoint/a_test.go", "github.com/vishvananda/netlink", "only netns may"},
		"libcontainer":       {"container/a.go", "github.com/opencontainers/runc/libcontainer", "only internal/runc may"},
		"its cgroups":        {"quota/a.go", "github.com/opencontainers/cgroups", "only internal/runc may"},
		"the other cgroups":  {"quota/a.go", "github.com/containerd/cgroups/v3/cgroup1", ""},
		"a similar name":     {"host/a.go", "github.com/opencontainers/runc-like", ""},
		"netns is a package": {"host/a.go", module + "netns", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := source(t, tt.path, "package x\nimport _ \""+tt.imports+"\"\n")
			wantSays(t, doorComplaints(f), tt.want)
		})
	}
}

func TestCallRule(t *testing.T) {
	tests := map[string]struct{ path, text, want string }{
		"exit":                {"host/a.go", `import "os"; func f() { os.Exit(1) }`, "os.Exit: only main decides"},
		"exit of another os":  {"host/a.go", `import os "example.com/os"; func f() { os.Exit(1) }`, ""},
		"exit under a name":   {"host/a.go", `import o "os"; var f = o.Exit`, "os.Exit"},
		"exit in main":        {"cmd/ctctl/main.go", `import "os"; func f() { os.Exit(1) }`, ""},
		"exit in the re-exec": {"container/reexec.go", `import "os"; func f() { os.Exit(1) }`, ""},
		"exit beside it":      {"container/a.go", `import "os"; func f() { os.Exit(1) }`, "os.Exit"},
		"exit in a test":      {"host/a_test.go", `import "os"; func f() { os.Exit(1) }`, ""},
		"fatal log":           {"host/a.go", `import "log"; func f() { log.Fatalf("x") }`, "return the error"},
		"command":             {"netns/a.go", `import "os/exec"; var c = exec.Command("ip")`, "CommandContext"},
		"command and context": {"netns/a.go", `import "os/exec"; var c = exec.CommandContext(nil, "ip")`, ""},
		"remove all":          {"host/a.go", `import "os"; var e = os.RemoveAll("/")`, "RemoveTree"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantSays(t, callComplaints(source(t, tt.path, "package x\n"+tt.text)), tt.want)
		})
	}
}

func TestSizeRule(t *testing.T) {
	body := func(n int) string { return strings.Repeat("\n", n) }
	tests := map[string]struct{ text, want string }{
		"highest function":    {"package x\nfunc f() {" + body(maxFuncLines-1) + "}\n", ""},
		"too high a function": {"package x\nfunc f() {" + body(maxFuncLines) + "}\n", "f has 81 lines, at most 80"},
		"too high a method":   {"package x\nfunc (t T) m() {" + body(maxFuncLines) + "}\n", "m has 81 lines"},
		"too high a literal":  {"package x\nvar f = func() {" + body(maxFuncLines) + "}\n", "literal has 81 lines"},
		"longest file":        {"package x" + body(maxFileLines), ""},
		"too long a file":     {"package x" + body(maxFileLines+1), "has 501 lines, at most 500"},
		"generated":           {"// Code generated by x. DO NOT EDIT.\n\npackage x" + body(maxFileLines+1), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantSays(t, sizeComplaints(source(t, "x/a.go", tt.text)), tt.want)
		})
	}
}

func TestInterfaceRule(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"four":                    {"type I interface { A(); B(); C(); D() }", ""},
		"five":                    {"type I interface { A(); B(); C(); D(); E() }", "5 methods"},
		"five in a parameter":     {"func f(i interface { A(); B(); C(); D(); E() }) {}", "5 methods"},
		"hidden by embedding":     {"type A interface { A(); B(); C() }\ntype B interface { A; D(); E() }", "5 methods"},
		"others embedded":         {"import \"io\"\ntype B interface { io.Reader; io.Writer; io.Closer; A() }", ""},
		"too many embedded":       {"import \"io\"\ntype B interface { io.Reader; io.Writer; io.Closer; A(); B() }", "5 methods"},
		"a constraint":            {"type N interface { ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint }", ""},
		"one that embeds itself":  {"type A interface { A }", ""},
		"a struct with functions": {"type S struct { A, B, C, D, E func() }", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := source(t, "x/a.go", "package x\n"+tt.text)
			wantSays(t, interfaceComplaints([]goFile{f}), tt.want)
		})
	}
}

func TestPackageCommentRule(t *testing.T) {
	with, without := "// Package x is.\npackage x\n", "package x\n"
	tests := map[string]struct {
		files map[string]string
		want  string
	}{
		"one":              {map[string]string{"x/a.go": with, "x/b.go": without}, ""},
		"none":             {map[string]string{"x/a.go": without}, "has 0 package comments"},
		"two":              {map[string]string{"x/a.go": with, "x/b.go": with}, "has 2 package comments"},
		"in a test":        {map[string]string{"x/a.go": without, "x/a_test.go": with}, "has 0 package comments"},
		"tests only":       {map[string]string{"x/a_test.go": with, "x/b_test.go": without}, ""},
		"about no package": {map[string]string{"x/a.go": "// This is x.\npackage x\n"}, "does not begin with"},
		"a command":        {map[string]string{"x/a.go": "// Command x does.\npackage main\n"}, ""},
		"two directories":  {map[string]string{"x/a.go": with, "y/a.go": with}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var code []goFile
			for path, text := range tt.files {
				code = append(code, source(t, path, text))
			}
			wantSays(t, commentComplaints(code), tt.want)
		})
	}
}

func TestNameRule(t *testing.T) {
	for path, want := range map[string]string{
		"internal/util/a.go":  `"util" says nothing`,
		"host/helpers.go":     `"helpers" says nothing`,
		"host/common_test.go": `"common" says nothing`,
		"types/a.go":          `"types" says nothing`,
		"host/types.go":       "",
		"host/utility.go":     "",
	} {
		t.Run(path, func(t *testing.T) {
			wantSays(t, nameComplaints(source(t, path, "package x\n")), want)
		})
	}
}

// Joined, so that this file keeps the rules itself.
func TestWordRules(t *testing.T) {
	rules, err := readRules("testdata/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules = append(rules, placeRule("/build/here/ctctl")...)
	if got := placeRule("/var/lib/ctctl"); got != nil {
		t.Errorf("a checkout in /var/lib forbids /var/lib: %v", got)
	}
	for text, bad := range map[string]bool{
		"// TO" + "DO: later":                  true,
		"// FIX" + "ME":                        true,
		"https://proxy." + "golang.org/x":      true,
		"see /build/here" + "/notes.md":        true,
		"\"/build/here" + "/other\"":           true,
		"/var/build/here" + "/notes.md":        false,
		"a method, a proxy, home/x, /home is":  false,
		"/build/hereafter, not implemented by": false,
	} {
		got := wordComplaints(textFile{"x/a.md", []byte("first\n" + text + "\n")}, rules)
		if len(got) > 0 != bad {
			t.Errorf("%q: %v", text, got)
		}
		if bad && !strings.HasPrefix(strings.Join(got, ""), "x/a.md:2: ") {
			t.Errorf("%q: no place in %v", text, got)
		}
	}
}

// The rules must see the whole repository, this file included.
func TestTheTreeHasCodeTestsAndText(t *testing.T) {
	all := repository(t)
	code, text := map[string]bool{}, map[string]bool{}
	for _, f := range all.code {
		code[f.path] = true
	}
	for _, f := range all.text {
		text[f.path] = true
	}
	for _, path := range []string{"internal/arch/rules_test.go", "internal/statefile/lock.go"} {
		if !code[path] || !text[path] {
			t.Errorf("%s was not read", path)
		}
	}
	if !text["go.mod"] || !text["internal/arch/testdata/words.txt"] {
		t.Error("text files were not read")
	}
}
