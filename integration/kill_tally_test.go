package integration_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tally counts what was killed during what, and what came of it.
type tally map[killKey]*killCount

type killKey struct{ op, victim string }

type killCount struct {
	rounds, hit int
	came        map[string]int
}

func (y tally) add(op, victim string, hit bool, came string) {
	c := y[killKey{op, victim}]
	if c == nil {
		c = &killCount{came: map[string]int{}}
		y[killKey{op, victim}] = c
	}
	c.rounds++
	if hit {
		c.hit++
	}
	c.came[came]++
}

func (y tally) killed() (n int) {
	for _, c := range y {
		n += c.hit
	}
	return n
}

func (y tally) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %-11s %6s %6s  %s\n", "OPERATION", "VICTIM", "ROUNDS", "KILLED", "CAME TO")
	keys := slices.SortedFunc(maps.Keys(y), func(a, b killKey) int {
		return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.victim, b.victim))
	})
	rounds, hit := 0, 0
	for _, k := range keys {
		c := y[k]
		rounds, hit = rounds+c.rounds, hit+c.hit
		var came []string
		for _, s := range slices.Sorted(maps.Keys(c.came)) {
			came = append(came, fmt.Sprintf("%s %d", s, c.came[s]))
		}
		fmt.Fprintf(&b, "%-10s %-11s %6d %6d  %s\n", k.op, k.victim, c.rounds, c.hit, strings.Join(came, ", "))
	}
	fmt.Fprintf(&b, "%-22s %6d %6d\n", "all", rounds, hit)
	return b.String()
}
