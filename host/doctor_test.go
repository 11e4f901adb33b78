package host

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/google/go-cmp/cmp"
)

func find(r Report, area string, s Result, text string) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Area == area && f.Status == s && strings.Contains(f.What, text)
	})
}

func wantFinding(t *testing.T, r Report, area string, s Result, text string) {
	t.Helper()
	if !find(r, area, s, text) {
		t.Errorf("no finding %s %s %q in %+v", area, s, text, r.Findings)
	}
}

// open is a directory that others may pass, all the way.
func open(t *testing.T) string {
	t.Helper()
	dir := testutil.TempDir(t)
	for d := dir; d != "/var/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDoctorTriesThisMachineAndTouchesNeitherRoot(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.UserNS, testutil.Btrfs)
	dir := open(t)
	o := Options{StateRoot: filepath.Join(dir, "state"), RunRoot: filepath.Join(dir, "run")}
	began := time.Now()
	r := Doctor(t.Context(), o)
	took := time.Since(began)
	if !r.OK() {
		t.Errorf("it fails: %+v", r.Findings)
	}
	for _, area := range []string{
		AreaPrivileges, AreaKernel, AreaNamespaces, AreaSeccomp, AreaCgroups, AreaCRIU, AreaStorage, AreaNetwork, AreaRunRoot,
	} {
		if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Area == area }) {
			t.Errorf("nothing about %s", area)
		}
	}
	wantFinding(t, r, AreaCRIU, Pass, "checkpointed and restored")
	wantFinding(t, r, AreaCgroups, Pass, "the freezer works")
	if took > 20*time.Second { // about a second on an idle machine
		t.Errorf("it took %s", took)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("it left %v, error %v", left, err)
	}
}

func TestEveryFindingThatDoesNotPassSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("CTCTL_CRIU", filepath.Join(dir, "absent"))
	r := Doctor(t.Context(), Options{StateRoot: "/proc/absent", RunRoot: dir})
	wantFinding(t, r, AreaCRIU, Fail, "absent")
	if r.OK() {
		t.Error("OK without CRIU")
	}
	for _, f := range r.Findings {
		switch {
		case f.Area == "" || f.What == "" || strings.Contains(f.What, "\n"):
			t.Errorf("not a line about an area: %+v", f)
		case f.Status == Pass && f.Cure != "":
			t.Errorf("a cure for nothing: %+v", f)
		case f.Status != Pass && f.Cure == "":
			t.Errorf("no cure: %+v", f)
		}
	}
}

func TestACRIUThatIsTooOldFails(t *testing.T) {
	fake := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(fake, []byte("#!/bin/sh\necho Version: 3.17.1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	x := &examination{o: Options{CRIU: fake}}
	x.criu(t.Context())
	wantFinding(t, x.report, AreaCRIU, Fail, "3.17.1")
}

func TestWithoutRootTheRestIsStillLookedAt(t *testing.T) {
	x := &examination{o: Options{StateRoot: t.TempDir(), RunRoot: t.TempDir()}}
	for _, check := range []func(context.Context){
		x.privileges, x.kernel, x.userNamespaces, x.otherNamespaces, x.cgroups, x.storage, x.space, x.network, x.runRoot, x.tools,
	} {
		check(t.Context())
	}
	wantFinding(t, x.report, AreaPrivileges, Fail, "not root")
	wantFinding(t, x.report, AreaNamespaces, Warn, "without root")
	wantFinding(t, x.report, AreaNetwork, Warn, "without root")
}

func TestKernelVersions(t *testing.T) {
	for release, want := range map[string]Result{
		"5.10.0-28-amd64": Fail, "5.14.9": Fail, "5.15.0": Warn, "6.1.0-30-amd64": Warn, "6.6.99": Warn,
		"6.7.0": Pass, "6.12.43+deb13-amd64": Pass, "7.0": Pass, "unknown": Warn,
	} {
		x := &examination{}
		x.kernelVersion(release)
		if got := x.report.Findings[0].Status; got != want {
			t.Errorf("%s: %s, want %s", release, got, want)
		}
	}
}

func TestEffectiveCapabilities(t *testing.T) {
	got, err := effectiveCaps("CapPrm:\t0000000000000001\nCapEff:\t000001feffffffff\nCapBnd:\t0\n")
	if err != nil || got != 0x1feffffffff {
		t.Errorf("got %#x, %v", got, err)
	}
	if _, err := effectiveCaps("Name:\tx\n"); err == nil {
		t.Error("no error without the line")
	}
}

func TestDirectoriesThatAreClosedToOthers(t *testing.T) {
	top := open(t)
	a, b := filepath.Join(top, "a"), filepath.Join(top, "a", "b")
	if err := os.MkdirAll(b, 0o711); err != nil {
		t.Fatal(err)
	}
	if got := closedDirectories(filepath.Join(b, "not", "yet")); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
	if err := os.Chmod(a, 0o700); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{a}, closedDirectories(filepath.Join(b, "not", "yet"))); diff != "" {
		t.Error(diff)
	}
}

func TestNearestDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: dir, filepath.Join(dir, "x/y"): dir, filepath.Join(file, "x"): dir, "/": "/"} {
		if got := nearest(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestABrokenHostFileIsAFinding(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "host.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	x := &examination{o: Options{StateRoot: dir}, root: true}
	x.storage(t.Context())
	wantFinding(t, x.report, AreaStorage, Fail, "host.json")
}

func TestAnInterruptedExaminationSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Doctor(ctx, Options{}); r.OK() || len(r.Findings) != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestTheReportAsJSON(t *testing.T) {
	r := Report{Findings: []Finding{{Area: AreaCRIU, Status: Warn, What: "w", Cure: "c"}, {Area: AreaRunRoot, Status: Pass, What: "p"}}}
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"findings":[{"area":"criu","status":"warn","what":"w","cure":"c"},{"area":"run root","status":"pass","what":"p"}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if got := r.Summary(); got != "2 checks: 0 failed, 1 with a warning" {
		t.Error(got)
	}
}
