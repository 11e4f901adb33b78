package arch

import (
	"fmt"
	"strings"
	"testing"
)

// layers says which packages may import which: only those of a lower number.
// A package that is not named has the layer of the nearest one above it, whose
// private part it is.
var layers = map[string]int{
	"integration":    7,
	"bench":          7,
	"cmd":            6,
	"host":           5,
	"migrate":        4,
	"checkpoint":     3,
	"container":      2,
	"template":       2,
	"internal/runc":  1,
	"internal/criu":  1,
	"storage/btrfs":  1,
	"storage/dir":    1,
	"netns":          0,
	"quota":          0,
	"profile":        0,
	"storage":        0,
	"hook":           0,
	"preflight":      0,
	"internal/arch":  0,
	lowestUndo:       -1,
	lowestStatefile:  -1,
	lowestThread:     -1,
	forTestsUtil:     0,
	forTestsContract: 1,
}

const (
	lowestUndo       = "internal/undo"
	lowestStatefile  = "internal/statefile"
	lowestThread     = "internal/thread"
	forTestsUtil     = "internal/testutil"
	forTestsContract = "storage/storagetest"
)

// outside is what packages of the lowest layer may import besides the standard
// library.
const outside = "golang.org/x/sys"

func TestImportsGoDownward(t *testing.T) {
	for _, f := range repository(t).code {
		wantNone(t, layerComplaints(f))
	}
}

// owner finds the entry of layers that a directory belongs to.
func owner(dir string) (string, bool) {
	for d := dir; d != ""; {
		if _, ok := layers[d]; ok {
			return d, true
		}
		cut := strings.LastIndex(d, "/")
		if cut < 0 {
			break
		}
		d = d[:cut]
	}
	return "", false
}

func layerComplaints(f goFile) (complaints []string) {
	if f.dir == "tools" || strings.HasPrefix(f.dir, ".") {
		return nil // modules of their own
	}
	from, ok := owner(f.dir)
	if !ok {
		return []string{fmt.Sprintf("%s: package %q has no layer; give it one in internal/arch", f.path, f.dir)}
	}
	for _, path := range f.imports() {
		if c := importComplaint(f, from, path); c != "" {
			complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", f.path, path, c))
		}
	}
	return complaints
}

func importComplaint(f goFile, from, path string) string {
	dir, ours := strings.CutPrefix(path, module)
	if !ours {
		lowest := layers[from] < 0 || from == forTestsUtil
		if lowest && !f.test && !standard(path) && !within(path, outside) {
			return "packages of the lowest layer import the standard library and " + outside + " only"
		}
		return ""
	}
	to, ok := owner(dir)
	if !ok {
		return "it has no layer"
	}
	forTests := to == forTestsUtil || to == forTestsContract
	switch {
	case to == from: // a private part, or the tests of the package
		return ""
	case forTests && f.test:
		return ""
	case forTests && from != forTestsContract:
		return "it is for tests only"
	case layers[to] < layers[from] || forTests:
		return ""
	case f.test && layers[to] == layers[from]:
		return "" // tests may look sideways
	default:
		return fmt.Sprintf("layer %d must not import layer %d", layers[from], layers[to])
	}
}

// standard: the paths of the standard library have no dot in the first part.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
