package arch

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// doors says which package alone imports a dependency, so that its types and
// habits stay in one place, and it can be exchanged there.
var doors = map[string]string{
	"github.com/opencontainers/runc":        "internal/runc",
	"github.com/opencontainers/cgroups":     "internal/runc",
	"github.com/checkpoint-restore/go-criu": "internal/criu",
	"github.com/vishvananda/netlink":        "netns",
	"github.com/vishvananda/netns":          "netns",
	"github.com/google/nftables":            "netns",
	"github.com/containerd/cgroups":         "quota",
	"github.com/urfave/cli":                 "cmd/ctctl",
}

// calls are those that only the named files or directories may make, and not
// tests: there the test's own end is the limit.
var calls = map[string]struct {
	why  string
	from []string
}{
	"os.Exit": {"only main decides the exit code, and the entries of processes that are this binary again", []string{
		"cmd", "bench", "integration/vm/guest", "internal/testutil", "container/reexec.go", "internal/runc/init.go", "internal/criu/canaryprogram.go",
	}},
	"log.Fatal":   {"return the error", nil},
	"log.Fatalf":  {"return the error", nil},
	"log.Fatalln": {"return the error", nil},
	"os/exec.Command": {"use CommandContext, with WaitDelay", []string{
		"container/adopt.go",    // the console's holder lives as long as init
		"container/launch.go",   // the supervisor outlives whoever starts it
		"internal/runc/root.go", // a child that is never run, only looked at
	}},
	"os.RemoveAll": {"statefile.RemoveTree does not follow mounts into other people's data", []string{
		"storage/storagetest",
	}},
}

func TestEachDependencyHasOneDoor(t *testing.T) {
	for _, f := range repository(t).code {
		wantNone(t, doorComplaints(f))
	}
}

func TestDangerousCallsAreMadeOnlyWhereTheyBelong(t *testing.T) {
	for _, f := range repository(t).code {
		wantNone(t, callComplaints(f))
	}
}

func doorComplaints(f goFile) (complaints []string) {
	for _, imported := range f.imports() {
		for dependency, door := range doors {
			// End-to-end tests look at the kernel with other eyes than the product's.
			witness := f.test && within(f.dir, "integration")
			if within(imported, dependency) && !within(f.dir, door) && !witness {
				complaints = append(complaints, fmt.Sprintf("%s imports %s, only %s may", f.path, imported, door))
			}
		}
	}
	return complaints
}

func callComplaints(f goFile) (complaints []string) {
	if f.test {
		return nil
	}
	packages := f.importNames()
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || packages[x.Name] == "" {
			return true
		}
		name := packages[x.Name] + "." + sel.Sel.Name
		rule, watched := calls[name]
		allowed := func(place string) bool { return within(f.path, place) }
		if watched && !slices.ContainsFunc(rule.from, allowed) {
			complaints = append(complaints, fmt.Sprintf("%s: %s: %s", f.at(sel), name, rule.why))
		}
		return true
	})
	return complaints
}

// importNames maps the names that the file uses to import paths.
func (f goFile) importNames() map[string]string {
	names := map[string]string{}
	for _, spec := range f.syntax.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
	}
	return names
}
