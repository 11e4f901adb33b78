package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// traceLine is what ctctl writes to standard error for each phase under CTCTL_TRACE=1.
var traceLine = regexp.MustCompile(`^trace (\S.*?) +([0-9.]+) ms$`)

// phases are the times of a command's phases, in the order in which they end.
type phases struct {
	order []string
	times map[string]sample
}

// add takes the trace of one run. A phase that a run has more than once counts
// with its sum.
func (p *phases) add(stderr string) {
	if p.times == nil {
		p.times = map[string]sample{}
	}
	sums := map[string]time.Duration{}
	for line := range strings.Lines(stderr) {
		m := traceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		ms, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			continue // not a trace line after all
		}
		sums[m[1]] += time.Duration(ms * float64(time.Millisecond))
		if _, known := p.times[m[1]]; !known {
			p.times[m[1]] = nil
			p.order = append(p.order, m[1])
		}
	}
	for name, d := range sums {
		p.times[name] = append(p.times[name], d)
	}
}

func (p *phases) median(name string) time.Duration { return p.times[name].median() }
