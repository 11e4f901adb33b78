package main

import (
	"fmt"
	"slices"
	"time"
)

// sample is the times that the runs of one measurement took.
type sample []time.Duration

// median of an even number of runs is the mean of the two in the middle; of
// none it is 0.
func (s sample) median() time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (s sample) fastest() time.Duration {
	if len(s) == 0 {
		return 0
	}
	return slices.Min(s)
}

func (s sample) slowest() time.Duration {
	if len(s) == 0 {
		return 0
	}
	return slices.Max(s)
}

// show writes milliseconds with as many digits as mean something.
func show(d time.Duration) string {
	ms := float64(d.Microseconds()) / 1000
	switch {
	case d == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// ratio says how many times as long as theirs ours takes.
func ratio(ours, theirs time.Duration) string {
	if ours == 0 || theirs == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(ours)/float64(theirs))
}
