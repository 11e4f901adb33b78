package preflight

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Level says how bad a finding is.
type Level string

const (
	Pass Level = "pass"
	Warn Level = "warn" // the checkpoint works or may work, but something is lost
	Fail Level = "fail" // CRIU refuses, or could not restore what it has dumped
)

// Areas of findings.
const (
	Processes   = "processes"
	Namespaces  = "namespaces"
	Descriptors = "descriptors"
	Sockets     = "sockets"
	Mappings    = "mappings"
	Mounts      = "mounts"
)

var areas = []string{Processes, Namespaces, Descriptors, Sockets, Mappings, Mounts}

// Finding is one thing that was looked at. All text is safe to print.
type Finding struct {
	Level Level  `json:"level"`
	Area  string `json:"area"`
	// Code names the kind of finding, such as "io_uring"; "" when it passed.
	Code string `json:"code,omitempty"`
	// PID is the process as the container sees it, HostPID as the caller does;
	// both 0 where it is about no process.
	PID     int    `json:"pid,omitempty"`
	HostPID int    `json:"hostPid,omitempty"`
	Command string `json:"command,omitempty"` // at most 15 bytes long, before escaping
	Unit    string `json:"unit,omitempty"`    // of systemd, if it is in one
	// FD is the descriptor's number, -1 for none. More counts the descriptors or
	// mappings of the same process of which the same is true.
	FD   int `json:"fd"`
	More int `json:"more,omitempty"`
	// What says in one line what was found, CRIU what CRIU says to it or does with
	// it, Cure what to do, in one command or line.
	What string `json:"what"`
	CRIU string `json:"criu,omitempty"`
	Cure string `json:"cure,omitempty"`
	// Transient findings may be gone in a moment.
	Transient bool `json:"transient,omitempty"`

	same string // what else must agree for two findings to be one
}

// Subject is the process and the descriptor in a few words; "" for none.
func (f Finding) Subject() string {
	if f.HostPID == 0 {
		return ""
	}
	s := fmt.Sprintf("process %d (%s", f.PID, f.Command)
	if f.PID == 0 {
		s = fmt.Sprintf("process %d outside (%s", f.HostPID, f.Command)
	}
	if f.Unit != "" {
		s += ", " + f.Unit
	}
	s += ")"
	if f.FD >= 0 {
		s += fmt.Sprintf(" descriptor %d", f.FD)
	}
	return s
}

// String is the finding in one line.
func (f Finding) String() string {
	s := f.What
	if subject := f.Subject(); subject != "" {
		s = subject + ": " + s
	}
	if f.More > 0 {
		s += fmt.Sprintf(" (and %d more)", f.More)
	}
	if f.Cure != "" {
		s += ": " + f.Cure
	}
	return s
}

// Report is what Examine found, failures first.
type Report struct {
	Findings []Finding `json:"findings"`
	// Omitted counts findings that were left out to bound the report.
	Omitted int `json:"omitted,omitempty"`

	// Counts of what an image would hold.
	Processes   int `json:"processes"`
	Threads     int `json:"threads"`
	Descriptors int `json:"descriptors"`
	// EstimatedBytes is about the size of an image's memory pages, from above.
	EstimatedBytes int64 `json:"estimatedBytes"`
	// EstimatedFrozen is about how long the processes would stand still.
	EstimatedFrozen time.Duration `json:"-"`
	// EstimatedFrozenMillis is the same for JSON.
	EstimatedFrozenMillis int64 `json:"estimatedFrozen_ms"`
}

// OK says that nothing failed.
func (r Report) OK() bool { return len(r.Failures()) == 0 }

// Failures are the findings that stand in the way.
func (r Report) Failures() []Finding { return r.at(Fail) }

// Warnings are the findings that deserve a word.
func (r Report) Warnings() []Finding { return r.at(Warn) }

func (r Report) at(l Level) []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Level == l {
			out = append(out, f)
		}
	}
	return out
}

// mostFindings bounds a report: what is wrong with so many is said of enough.
const mostFindings = 200

// finish orders and bounds the findings, and says of each area without any that
// it passed.
func (r *Report) finish(list []Finding, counts map[string]string) {
	list = merge(list)
	bad := map[string]bool{}
	for _, f := range list {
		bad[f.Area] = true
	}
	if len(list) > mostFindings {
		r.Omitted = len(list) - mostFindings
		list = list[:mostFindings]
	}
	for _, area := range areas {
		if !bad[area] {
			list = append(list, Finding{Level: Pass, Area: area, FD: -1, What: counts[area]})
		}
	}
	r.Findings = list
	r.EstimatedFrozenMillis = r.EstimatedFrozen.Milliseconds()
}

// merge makes one finding of those that say the same of one process, and sorts:
// failures first, then by area and process.
func merge(list []Finding) []Finding {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(rank(a.Level), rank(b.Level)), cmp.Compare(slices.Index(areas, a.Area), slices.Index(areas, b.Area)),
			cmp.Compare(a.PID, b.PID), cmp.Compare(a.HostPID, b.HostPID), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.same, b.same), cmp.Compare(a.FD, b.FD),
		)
	})
	var out []Finding
	for _, f := range list {
		if n := len(out); n > 0 && f.HostPID != 0 && out[n-1].HostPID == f.HostPID && out[n-1].Code == f.Code && out[n-1].same == f.same {
			out[n-1].More++
			continue
		}
		out = append(out, f)
	}
	return out
}

func rank(l Level) int { return slices.Index([]Level{Fail, Warn, Pass}, l) }
