package host

import (
	"context"
	"fmt"

	"github.com/ctctl/ctctl/preflight"
)

// Result is how a check ended.
type Result string

const (
	Pass Result = "pass"
	Warn Result = "warn" // it works, but less well or less safely; What says how
	Fail Result = "fail" // containers, or checkpoints of them, don't work
)

// Areas of findings.
const (
	AreaPrivileges = "privileges"
	AreaKernel     = "kernel"
	AreaNamespaces = "namespaces"
	AreaSeccomp    = "seccomp"
	AreaCgroups    = "cgroups"
	AreaCRIU       = "criu"
	AreaStorage    = "storage"
	AreaNetwork    = "network"
	AreaRunRoot    = "run root"
	AreaTools      = "tools"
)

// Finding is one thing that was looked at.
type Finding struct {
	Area   string `json:"area"`
	Status Result `json:"status"`
	What   string `json:"what"`           // one line
	Cure   string `json:"cure,omitempty"` // a command where there is one; none when it passed
	// Fixed is what Fix did about it, and what it left.
	Fixed string `json:"fixed,omitempty"`
	// Process is what stands in the way of a checkpoint, in its parts.
	Process *preflight.Finding `json:"process,omitempty"`
}

// Report is what Doctor found out, in the order of the checks.
type Report struct {
	Findings []Finding `json:"findings"`
}

// OK says that nothing failed.
func (r Report) OK() bool { return r.count(Fail) == 0 }

func (r Report) count(s Result) (n int) {
	for _, f := range r.Findings {
		if f.Status == s {
			n++
		}
	}
	return n
}

// Summary counts the findings in a few words.
func (r Report) Summary() string {
	return fmt.Sprintf("%d checks: %d failed, %d with a warning", len(r.Findings), r.count(Fail), r.count(Warn))
}

// examination collects the findings of one Doctor.
type examination struct {
	o      Options
	root   bool // effective user id 0
	report Report
}

func (x *examination) add(area string, s Result, cure, what string, args ...any) {
	if s == Pass {
		cure = ""
	}
	x.report.Findings = append(x.report.Findings, Finding{Area: area, Status: s, What: fmt.Sprintf(what, args...), Cure: cure})
}

func (x *examination) pass(area, what string, args ...any) { x.add(area, Pass, "", what, args...) }

// needRoot leaves a check out when it would only say again that this is not
// root.
func (x *examination) needRoot(area, what string) bool {
	if !x.root {
		x.add(area, Warn, "sudo ctctl doctor", "%s: not looked at without root", what)
	}
	return x.root
}

// Doctor finds out whether this machine can run and checkpoint containers. It
// tries rather than asks: kernels and CRIU promise things that then fail. It
// needs no working host, makes none, and everything that is wrong, up to a
// missing root, is a finding. It takes about a second.
func Doctor(ctx context.Context, o Options) Report {
	x := &examination{o: o.withDefaults(), root: effectiveRoot()}
	for _, check := range []func(context.Context){
		x.privileges, x.kernel, x.userNamespaces, x.otherNamespaces, x.seccomp, x.cgroups,
		x.criu, x.storage, x.space, x.network, x.runRoot, x.tools,
	} {
		if ctx.Err() != nil {
			x.add(AreaTools, Fail, "sudo ctctl doctor", "the examination was ended: %v", context.Cause(ctx))
			break
		}
		check(ctx)
	}
	return x.report
}
