package preflight

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindingsAreMergedAndOrdered(t *testing.T) {
	var r Report
	one := Finding{Level: Fail, Area: Sockets, Code: "vsock", PID: 2, HostPID: 20, Command: "a", FD: 4, What: "VSOCK socket", same: "x"}
	again := one
	again.FD = 3
	other := one
	other.HostPID, other.PID = 30, 3
	warning := Finding{Level: Warn, Area: Processes, Code: "exec-session", PID: 9, HostPID: 90, FD: -1}
	mount := Finding{Level: Fail, Area: Mounts, Code: "fuse", FD: -1, What: "fuse mounted on /a", Cure: "unmount it"}
	second := mount
	second.What = "fuse mounted on /b"
	r.finish([]Finding{warning, one, mount, again, second, other}, map[string]string{Namespaces: "one of each"})
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s %s", f.Level, f))
	}
	want := []string{
		"fail process 2 (a) descriptor 3: VSOCK socket (and 1 more)", "fail process 3 (a) descriptor 4: VSOCK socket",
		"fail fuse mounted on /a: unmount it", "fail fuse mounted on /b: unmount it", "warn process 9 (): ",
		"pass one of each", "pass ", "pass ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if r.OK() || len(r.Failures()) != 4 || len(r.Warnings()) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestAReportIsBounded(t *testing.T) {
	var list []Finding
	for i := range 3 * mostFindings {
		list = append(list, Finding{Level: Fail, Area: Sockets, Code: "vsock", PID: i + 1, HostPID: i + 1})
	}
	var r Report
	r.finish(list, nil)
	if len(r.Failures()) != mostFindings || r.Omitted != 2*mostFindings {
		t.Errorf("%d failures, %d omitted", len(r.Failures()), r.Omitted)
	}
}

func TestAReportIsReadableByPrograms(t *testing.T) {
	r := Report{Findings: []Finding{{Level: Fail, Area: Sockets, Code: "vsock", PID: 2, HostPID: 20, Command: "a", FD: 0, What: "w", CRIU: "c", Cure: "d", same: "s"}}}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"findings":[{"level":"fail","area":"sockets","code":"vsock","pid":2,"hostPid":20,"command":"a","fd":0,"what":"w","criu":"c","cure":"d"}],` +
		`"processes":0,"threads":0,"descriptors":0,"estimatedBytes":0,"estimatedFrozen_ms":0}`
	if string(b) != want {
		t.Errorf("got %s\nwant %s", b, want)
	}
}

func TestEveryRuleIsWhole(t *testing.T) {
	for code, k := range rules {
		if !strings.Contains(strings.Join(areas, " "), k.area) || k.level == Pass || k.criu == "" || k.cure == "" {
			t.Errorf("%s: %+v", code, k)
		}
		if k.transient && k.level == Fail {
			t.Errorf("%s: what may pass by itself must not refuse", code)
		}
	}
}
