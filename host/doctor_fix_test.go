package host

import (
	"testing"

	"github.com/ctctl/ctctl/preflight"
	"github.com/google/go-cmp/cmp"
)

func TestWhatWasFixedIsSaidOfFindingsThatStayAndOfThoseThatAreGone(t *testing.T) {
	finding := func(code string, pid int) Finding {
		return Finding{Area: "x", Status: Fail, What: code, Cure: "cure", Process: &preflight.Finding{Code: code, HostPID: pid, FD: -1}}
	}
	stays, goes := finding("mptcp", 1), finding("stopped", 2)
	stays.Fixed, goes.Fixed = "half", "whole"
	other := finding("mptcp", 3)
	got := Report{Findings: []Finding{other, finding("mptcp", 1)}}.with([]Finding{stays, goes})
	want := Report{Findings: []Finding{other, stays, {Area: "x", Status: Pass, What: "stopped", Fixed: "whole"}}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(preflight.Finding{})); diff != "" {
		t.Error(diff)
	}
	if got.OK() {
		t.Error("what stays counts")
	}
}
