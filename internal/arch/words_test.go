package arch

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// wordRule forbids what it matches.
type wordRule struct {
	pattern *regexp.Regexp
	why     string
}

// publicPlaces are directories that files may name though a checkout can lie
// right below them.
var publicPlaces = []string{
	"/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local/src",
	"/usr/src", "/var/lib", "/var/tmp",
}

func TestNothingIsWrittenThatOnlyItsMakersUnderstand(t *testing.T) {
	all := repository(t)
	rules, err := readRules("testdata/words.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules = append(rules, placeRule(all.root)...)
	for _, f := range all.text {
		wantNone(t, wordComplaints(f, rules))
	}
}

func readRules(path string) ([]wordRule, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var rules []wordRule
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		pattern, why, ok := strings.Cut(line, "\t")
		if !ok {
			return nil, fmt.Errorf("%s: no reason after a tab: %s", path, line)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		rules = append(rules, wordRule{re, why})
	}
	return rules, nil
}

// placeRule forbids absolute paths beside the checkout.
func placeRule(root string) []wordRule {
	parent := filepath.Dir(root)
	if slices.Contains(publicPlaces, parent) {
		return nil
	}
	re := regexp.MustCompile(`(^|[^\w./-])` + regexp.QuoteMeta(parent) + `/`)
	return []wordRule{{re, "the place where this checkout lies"}}
}

func wordComplaints(f textFile, rules []wordRule) (complaints []string) {
	if filepath.Base(f.path) == "go.sum" {
		return nil
	}
	for _, r := range rules {
		for _, m := range r.pattern.FindAllIndex(f.text, -1) {
			line := 1 + bytes.Count(f.text[:m[1]], []byte("\n"))
			complaints = append(complaints, fmt.Sprintf("%s:%d: %q: %s", f.path, line, f.text[m[0]:m[1]], r.why))
		}
	}
	return complaints
}
