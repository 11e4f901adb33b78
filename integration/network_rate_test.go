package integration_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
)

// onHost does to the host's side what another administrator might.
func onHost(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

func TestRatesThatSomebodyTookAwayAreSeenAndRepaired(t *testing.T) {
	r := open(t)
	testutil.Require(t, testutil.Tool("ip"), testutil.Tool("tc"))
	b := r.create(t, openRedis...)
	r.ctctl(t, "start", b.name)
	r.ctctl(t, "set", b.name, "--rate-egress", "20mbit", "--rate-ingress", "30mbit")
	link := "ct" + b.uid[:12]
	shaper := "cr" + b.uid[:12]
	silent := func(when string) {
		t.Helper()
		for _, how := range [][]string{{"net", "repair", b.name}, {"repair", b.name}} {
			if out := r.ctctl(t, how...); strings.Contains(out, b.name+":") {
				t.Errorf("%s, %v did: %s", when, how, out)
			}
		}
	}
	silent("as it was set")
	for _, test := range []struct {
		spoil  []string
		repair []string
		want   string
	}{
		{[]string{"tc", "qdisc", "del", "dev", link, "root"}, []string{"net", "repair"}, "rate ingress of " + link + " is absent, not 30000000 bit/s"},
		{[]string{"ip", "link", "del", shaper}, []string{"repair"}, "rate egress of " + link + " is absent, not 20000000 bit/s"},
		{[]string{"ip", "link", "del", link}, []string{"net", "repair"}, "link " + link + " is absent"},
	} {
		onHost(t, test.spoil...)
		if out := r.ctctl(t, "net", "show", b.name); !strings.Contains(out, test.want) {
			t.Errorf("after %v, net show says nothing of it:\n%s", test.spoil, out)
		}
		if out := r.ctctl(t, append(test.repair, b.name)...); !strings.Contains(out, test.want) {
			t.Errorf("after %v, %v did: %s", test.spoil, test.repair, out)
		}
		silent("repaired")
	}
	// Its shaper waits for the resume.
	r.ctctl(t, "suspend", b.name)
	silent("suspended")
	r.ctctl(t, "resume", b.name)
	silent("resumed")
	out := r.ctctl(t, "net", "show", b.name)
	for _, rate := range []string{"bits_per_second: 20000000", "bits_per_second: 30000000"} {
		if !strings.Contains(out, rate) {
			t.Errorf("resumed without the rate of %s:\n%s", rate, out)
		}
	}
}
