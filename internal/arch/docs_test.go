package arch

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	readme     = "README.md"
	tourScript = "integration/testdata/tour.txtar"
)

// TestTheTourOfTheReadmeIsRun compares the README's tour with the script that the
// end-to-end tests run: every command shown is in it, in the same order.
func TestTheTourOfTheReadmeIsRun(t *testing.T) {
	all := repository(t)
	shown := tourCommands(all.textOf(t, readme))
	if len(shown) < 20 {
		t.Fatalf("only %d commands were found in the tour", len(shown))
	}
	run := strings.Split(all.textOf(t, tourScript), "\n")
	wantNone(t, notRun(shown, run))
}

func (t tree) textOf(tb testing.TB, name string) string {
	tb.Helper()
	for _, f := range t.text {
		if f.path == name {
			return string(f.text)
		}
	}
	tb.Fatalf("there is no %s", name)
	return ""
}

// elsewhere are commands that other tests run.
var elsewhere = []string{"exec ctctl template build "}

// inScript are what the script has in the place of the tour's names. Longer ones
// come before those that they begin with.
var inScript = strings.NewReplacer(
	"sudo ctctl ", "exec ctctl ", "redis-cli -h ", "redis ",
	"10.157.100.7", "$IP2", "10.157.0.2", "$IP", "--ip auto", "--ip $IP",
	"web1", "$C", "--template debian", "--template full", "/etc/motd", "motd", "/mnt", "$WORK/mnt",
)

// tourCommands are the commands of the tour as the script has them.
func tourCommands(text string) (commands []string) {
	_, tour, _ := strings.Cut(text, "\n## A tour\n")
	tour, _, _ = strings.Cut(tour, "\n## ")
	for line := range strings.Lines(tour) {
		if c, ok := strings.CutPrefix(line, "    $ "); ok {
			commands = append(commands, inScript.Replace(strings.TrimSpace(c)))
		}
	}
	return commands
}

// notRun are the commands that no line is, or only one before that of the
// command before.
func notRun(commands, lines []string) (complaints []string) {
	for _, c := range commands {
		if slices.ContainsFunc(elsewhere, func(prefix string) bool { return strings.HasPrefix(c, prefix) }) {
			continue
		}
		i := slices.Index(lines, c)
		if i < 0 {
			complaints = append(complaints, fmt.Sprintf("%s: the tour's %q is not in %s, or in another order", readme, c, tourScript))
			continue
		}
		lines = lines[i+1:]
	}
	return complaints
}

func TestRuleOfTheTour(t *testing.T) {
	lines := []string{"exec ctctl start $C", "stdout x", "redis $IP get a"}
	for text, want := range map[string]int{
		"    $ sudo ctctl start web1\n    $ redis-cli -h 10.157.0.2 get a\n": 0,
		"    $ redis-cli -h 10.157.0.2 get a\n    $ sudo ctctl start web1\n": 1,
		"    $ sudo ctctl stop web1\n    stopped\n":                          1,
		"    $ sudo ctctl template build x\n":                                0,
	} {
		if got := notRun(tourCommands("\n## A tour\n"+text+"\n## Next\n    $ sudo ctctl nonsense\n"), lines); len(got) != want {
			t.Errorf("%q: got %q, want %d", text, got, want)
		}
	}
}

// linkPattern finds the target of a link in Markdown, without what stands behind #.
var linkPattern = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)]*)?\)`)

func TestLinksOfTheDocumentationLeadSomewhere(t *testing.T) {
	all := repository(t)
	seen := 0
	for _, f := range all.text {
		if path.Ext(f.path) != ".md" {
			continue
		}
		for _, m := range linkPattern.FindAllSubmatch(f.text, -1) {
			target := string(m[1])
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(all.root, path.Dir(f.path), target)); err != nil {
				t.Errorf("%s: %v", f.path, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no link was found")
	}
}
