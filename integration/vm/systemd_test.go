//go:build vm

package vmrig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whatever systemd does with its own units, the limits of containers stay in force.
// It turns controllers off at the top of cgroup2 that none of its units needs, which
// is when it starts or stops one, above all after a reload.
func TestSystemdTakesNoLimitsAway(t *testing.T) {
	g := withTemplate(t)
	g.sh(t, `ctctl create web --template full --cpus 0.5 --cpuset 0 --cpu-weight 300 --memory 256M --memory-high 200M --pids 77 \
		--io-weight 321 --io-read /dev/vda=5MB/s -- sleep 1d; ctctl start web`)
	limits := func() string {
		return g.sh(t, `for f in cpu.max cpu.weight cpuset.cpus memory.max memory.high pids.max io.max io.weight; do
			echo "$f: $(cat /sys/fs/cgroup/ctctl-*/$f 2>&1)"; done`)
	}
	want := limits()
	t.Log(want)
	for _, what := range []string{
		"systemd-run --quiet --wait true",
		"systemctl daemon-reload; systemd-run --quiet --wait true",
		"systemctl daemon-reexec; systemd-run --quiet --scope true",
		"systemctl daemon-reload; systemctl restart cron",
		"systemd-run --quiet --wait -p CPUQuota=50% -p AllowedCPUs=0 -p IOWeight=50 true",
		"systemctl set-property --runtime system.slice CPUWeight=200 IOWeight=200; systemctl revert system.slice; systemctl restart cron",
	} {
		// The second restart comes when systemd has done what the first has led to.
		g.sh(t, what+"; systemctl restart cron")
		if diff := cmp.Diff(want, limits()); diff != "" {
			t.Errorf("after %s\n%s", what, diff)
			g.sh(t, "ctctl repair")
		}
	}
	g.sh(t, "ctctl destroy --force web; ! ls -d /sys/fs/cgroup/ctctl*")
}
