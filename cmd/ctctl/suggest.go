package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// nearest is the command that a mistyped word most likely means.
func nearest(w string, cmds []*cli.Command) string {
	best, at := "", 3
	for _, c := range cmds {
		if c.Hidden {
			continue
		}
		if d := distance(w, c.Name); d < at && d < len(c.Name) {
			best, at = c.Name, d
		}
	}
	return best
}

// distance counts the letters to insert, remove and exchange (Levenshtein).
func distance(a, b string) int {
	if len(a) > 32 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, last+1)
		}
	}
	return row[len(b)]
}

// mostSuggested bounds what a word may have meant.
const mostSuggested = 3

// nearFlags are the flags that a mistyped one most likely means: those that it
// begins, else those that are an edit or two away. Hidden ones are not suggested.
func nearFlags(word string, flags []cli.Flag) (near []string) {
	if len(word) < 2 {
		return nil
	}
	var begun, alike []string
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		name := f.Names()[0]
		switch {
		case strings.HasPrefix(name, word):
			begun = append(begun, "--"+name)
		case distance(word, name) <= 2 && len(name) > 3:
			alike = append(alike, "--"+name)
		}
	}
	if near = begun; len(begun) == 0 {
		near = alike
	}
	if len(near) > mostSuggested {
		return nil
	}
	return near
}

// surplusHint tells what a word too many was most likely meant as.
func surplusHint(word string, flags []cli.Flag) string {
	if slices.Contains([]string{"yes", "no", "true", "false", "on", "off"}, word) {
		return "a flag that is given or not takes no value; =false behind it turns it off"
	}
	name, value, assigned := strings.Cut(word, "=")
	if !assigned {
		return ""
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) && len(name) > 1 {
			return "did you mean --" + name + "=" + quotedIfNeeded(value) + "?"
		}
	}
	return ""
}

// quotedIfNeeded leaves a plain word as it is.
func quotedIfNeeded(word string) string {
	if q := quoteWord(word); q != `"`+word+`"` || word == "" || strings.ContainsAny(word, " $&;<>|*?()'") {
		return q
	}
	return word
}
