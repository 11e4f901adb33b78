package integration_test

import (
	"errors"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/quota"
)

// Each limit of a loaded server, set while it serves: it does what it says, and is gone
// when it is taken away; none of the server's clients notices.
func TestLimitsOfAServerDoWhatTheySay(t *testing.T) {
	r := open(t)
	b := r.create(t, openRedis...)
	r.ctctl(t, "start", b.name)
	p := startPacer(t, net.JoinHostPort(b.addr, "6379"), paceRate)
	for _, tc := range []struct {
		name string
		show func(*testing.T, *box)
	}{
		{"cpus", showCPUs},
		{"cpuset", showCPUSet},
		{"memory", showMemory},
		{"pids", showPIDs},
		{"io", showIO},
		{"disk", showDisk},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.show(t, b) })
		p.during(t, 100*time.Millisecond)
	}
	t.Logf("%d questions, none failed", p.end(t))
}

// setOrSkip sets limits that a host may have no controller for; where CI runs it has.
func (b *box) setOrSkip(t *testing.T, flags ...string) {
	t.Helper()
	res := b.try(t, append([]string{"set", b.name}, flags...)...)
	testutil.Require(t, func() error {
		if res.code == codeRefused {
			return errors.New(strings.TrimSpace(res.stderr))
		}
		return nil
	})
	if res.err != nil {
		t.Fatal(res)
	}
}

// wantAbout wants a measured figure near the wanted one; part is a half of the margin.
func wantAbout(t *testing.T, what string, got, want, part float64) {
	t.Helper()
	t.Logf("%s: %.4g, of %.4g wanted: %+.1f %%", what, got, want, (got/want-1)*100)
	// A machine that is busy with other things gives less.
	if got < want/5 || got > want*(1+part) {
		t.Errorf("%s: got %.4g, want %.4g", what, got, want)
	}
}

// cpusUsed is how many CPUs a container uses during some time.
func (b *box) cpusUsed(t *testing.T, span time.Duration) float64 {
	t.Helper()
	g, err := quota.Open("/ctctl-" + b.uid)
	if err != nil {
		t.Fatal(err)
	}
	read := func() quota.Usage {
		u, err := g.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	from := read()
	time.Sleep(span) // the point is that this time passes
	to := read()
	return float64(to.CPU.Time-from.CPU.Time) / float64(to.Time.Sub(from.Time))
}

func showCPUs(t *testing.T, b *box) {
	// With the weight it gets what it may have on a busy machine too.
	b.ctctl(t, "set", b.name, "--cpus", "0.3", "--cpu-weight", "10000")
	ended := make(chan result, 1)
	go func() {
		ended <- b.try(t, "exec", b.name, "--", "sh", "-c", "spin() { while ! [ -e /dev/shm/stop ]; do :; done; }; spin & spin; wait")
	}()
	defer func() {
		b.exec(t, "touch", "/dev/shm/stop")
		if res := <-ended; res.err != nil {
			t.Error(res)
		}
		b.ctctl(t, "set", b.name, "--cpus", "none", "--cpu-weight", "default") // when it failed before
	}()
	throttled := b.usage(t).fails("cpu")
	awaitThat(t, "it spins", func() bool { return b.usage(t).fails("cpu") > throttled+3 })
	wantAbout(t, "CPUs used", b.cpusUsed(t, 4*time.Second), 0.3, 0.25)
	// The weight goes too: without the limit it would leave nothing to everybody else.
	b.ctctl(t, "set", b.name, "--cpus", "none", "--cpu-weight", "default")
	awaitThat(t, "it uses more without the limit", func() bool { return b.cpusUsed(t, time.Second) > 0.4 })
}

func showCPUSet(t *testing.T, b *box) {
	all := strings.TrimSpace(b.exec(t, "nproc"))
	b.setOrSkip(t, "--cpuset", "0")
	if got := strings.TrimSpace(b.exec(t, "nproc")); got != "1" {
		t.Errorf("with one CPU nproc says %s", got)
	}
	if got := b.exec(t, "grep", "Cpus_allowed_list", "/proc/1/status"); !strings.HasSuffix(strings.TrimSpace(got), "\t0") {
		t.Errorf("the server runs on: %s", got)
	}
	b.ctctl(t, "set", b.name, "--cpuset", "none")
	if got := strings.TrimSpace(b.exec(t, "nproc")); got != all {
		t.Errorf("nproc said %s before and says %s after", all, got)
	}
}

func showMemory(t *testing.T, b *box) {
	was := b.usage(t)
	b.ctctl(t, "set", b.name, "--memory", "128M")
	eat := func() result {
		return b.try(t, "exec", b.name, "--", "python3", "-c", "print(len(b'x' * (256 << 20)))")
	}
	if res := eat(); res.code != 137 && !strings.Contains(res.stderr, "MemoryError") {
		t.Errorf("256 MiB within 128 MiB: %v", res)
	}
	u := b.usage(t)
	t.Logf("memory held at most: %.1f MiB; hits %d, killed %d", float64(u.most("memory"))/(1<<20),
		u.fails("memory")-was.fails("memory"), u.fails("oom-kill")-was.fails("oom-kill"))
	if u.fails("memory") <= was.fails("memory") || u.fails("oom-kill") <= was.fails("oom-kill") {
		t.Errorf("the limit was met %d times and killed %d, before %d and %d", u.fails("memory"), u.fails("oom-kill"), was.fails("memory"), was.fails("oom-kill"))
	}
	b.ctctl(t, "set", b.name, "--memory", "none")
	if res := eat(); res.err != nil {
		t.Errorf("without the limit: %v", res)
	}
}

func showPIDs(t *testing.T, b *box) {
	const fork = `import os, signal, errno
started = []
try:
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        started.append(pid)
    print("all", len(started))
except OSError as e:
    print(errno.errorcode[e.errno], len(started))
finally:
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)`
	was := b.usage(t).fails("pids")
	b.ctctl(t, "set", b.name, "--pids", "30")
	got := strings.Fields(b.exec(t, "python3", "-c", fork))
	t.Logf("of at most 30 processes and threads: %v", got)
	if n, err := strconv.Atoi(got[1]); got[0] != "EAGAIN" || err != nil || n < 5 || n > 28 {
		t.Errorf("100 forks with at most 30 processes: %v", got)
	}
	if now := b.usage(t).fails("pids"); now <= was {
		t.Errorf("%d refused forks, %d before", now, was)
	}
	b.ctctl(t, "set", b.name, "--pids", "4096")
	if got := strings.Fields(b.exec(t, "python3", "-c", fork)); got[0] != "all" {
		t.Errorf("with the limit taken back: %v", got)
	}
}

// showIO is about direct transfers: what the kernel writes back later is nobody's with
// cgroup v1.
func showIO(t *testing.T, b *box) {
	const mib, limit = 1 << 20, 4 << 20
	b.exec(t, "dd", "if=/dev/urandom", "of=/srv/io", "bs=1M", "count=16", "conv=fsync")
	defer b.exec(t, "rm", "/srv/io")
	for _, tc := range []struct {
		name, flag, value string
		dd                []string
		units, want       float64
	}{
		{"written a second", "--io-write", "4MiB/s", []string{"if=/dev/zero", "of=/srv/io", "oflag=direct", "conv=notrunc", "bs=512k", "count=24"}, 12 * mib, limit},
		{"read a second", "--io-read", "4MiB/s", []string{"if=/srv/io", "of=/dev/null", "iflag=direct", "bs=512k", "count=24"}, 12 * mib, limit},
		{"reads a second", "--io-read", "200iops", []string{"if=/srv/io", "of=/dev/null", "iflag=direct", "bs=4k", "count=600"}, 600, 200},
	} {
		b.setOrSkip(t, tc.flag, "pool="+tc.value)
		wantAbout(t, tc.name, tc.units/b.dd(t, tc.dd), tc.want, 0.4)
		b.ctctl(t, "set", b.name, tc.flag, "pool=none")
		awaitThat(t, "without the limit it is faster", func() bool {
			rate := tc.units / b.dd(t, tc.dd)
			t.Logf("%s without the limit: %.4g", tc.name, rate)
			return rate > 2*tc.want
		})
	}
}

var ddTook = regexp.MustCompile(`copied, ([0-9.e+-]+) s`)

// dd is the seconds that it took, as it says itself.
func (b *box) dd(t *testing.T, args []string) float64 {
	t.Helper()
	res := b.try(t, append([]string{"exec", b.name, "--", "dd"}, args...)...)
	found := ddTook.FindStringSubmatch(res.stderr)
	if res.err != nil || found == nil {
		t.Fatal(res)
	}
	took, err := strconv.ParseFloat(found[1], 64)
	if err != nil || took <= 0 {
		t.Fatal(res)
	}
	return took
}

func showDisk(t *testing.T, b *box) {
	b.ctctl(t, "set", b.name, "--disk", strconv.Itoa(diskLimit))
	held := b.fill(t, "f")
	t.Logf("full with %.2f MiB of %d", float64(held)/(1<<20), diskLimit>>20)
	if held > diskLimit+diskSlack || held < diskLimit*3/4 {
		t.Errorf("full with %d bytes of %d", held, diskLimit)
	}
	if b.usage(t).fails("disk") == 0 {
		t.Error("nothing counts that it was full")
	}
	b.ctctl(t, "set", b.name, "--disk", "none")
	b.exec(t, "dd", "if=/dev/zero", "of=/srv/f-more", "bs=1M", "count=16", "conv=fsync")
	b.exec(t, "sh", "-c", "rm /srv/f-*")
}
