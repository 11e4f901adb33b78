package integration_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskLimit = 48 << 20
	// diskSlack is what the trees of the file system may take beyond the limit: a
	// change of them that has begun is not refused.
	diskSlack = 2 << 20
)

// filler writes until nothing more can be written, and keeps what it has got.
const filler = `i=0
while dd if=/dev/urandom of=/srv/$1-$i bs=1M count=4 2>/dev/shm/said; do i=$((i+1)); [ $i -lt 100 ] || exit 3; done
sync -f /srv
cat /dev/shm/said
grep -q 'Disk quota exceeded' /dev/shm/said`

// fill fills a container until its disk quota is exceeded, and returns what it then holds.
func (b *box) fill(t *testing.T, name string) int64 {
	t.Helper()
	b.exec(t, "sh", "-c", filler, "sh", name)
	return b.charged(t)
}

// charged is what a container has on disk, with what was only in memory before.
func (b *box) charged(t *testing.T) int64 {
	t.Helper()
	b.exec(t, "sync", "-f", "/")
	return b.usage(t).held("disk")
}

// poolUsed is what the pool has used of its bytes.
func (r *rig) poolUsed(t *testing.T) int64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(filepath.Join(r.state, "pool"), &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Blocks-fs.Bfree) * fs.Bsize
}

// Whatever a container's administrator and who takes its snapshots do: it does not get
// more of the disk than it may have, others can write, and deleting makes room.
func TestADiskLimitHoldsWhateverGamesArePlayed(t *testing.T) {
	r := open(t)
	b, other := r.create(t, "sleep", "infinity"), r.create(t, "sleep", "infinity")
	r.ctctl(t, "set", b.name, "--disk", strconv.Itoa(diskLimit))
	r.ctctl(t, "start", b.name, other.name)
	before := r.poolUsed(t)
	var most, mostGrown int64
	within := func(when string) {
		t.Helper()
		held := b.charged(t)
		if held > diskLimit+diskSlack {
			t.Errorf("%s: it holds %d bytes of %d", when, held, diskLimit)
		}
		// What is charged could be wrong as well.
		grown := r.poolUsed(t) - before
		if grown > 2*diskLimit {
			t.Errorf("%s: the pool has grown by %d bytes, it may have %d", when, grown, diskLimit)
		}
		most, mostGrown = max(most, held), max(mostGrown, grown)
	}
	for round := range rounds(t, 3) {
		one, two := fmt.Sprintf("one-%d", round), fmt.Sprintf("two-%d", round)
		b.exec(t, "dd", "if=/dev/urandom", "of=/srv/half", "bs=1M", "count=20", "conv=fsync")
		r.ctctl(t, "snapshot", "create", b.name, one)
		if held := b.fill(t, "a"); held < diskLimit*3/4 {
			t.Errorf("round %d: full with %d bytes of %d", round, held, diskLimit)
		}
		within("full")
		other.exec(t, "dd", "if=/dev/urandom", "of=/srv/f", "bs=1M", "count=32", "conv=fsync")
		other.exec(t, "rm", "/srv/f")

		// What the snapshot has stays charged when the container deletes it.
		b.exec(t, "sh", "-c", "rm /srv/*")
		b.fill(t, "b")
		within("deleted and full again")
		b.playSnapshot(t, two)
		within("a snapshot when it is full")

		// Back to when half was in use, with what was written since deleted or kept.
		r.ctctl(t, "rollback", b.name, one)
		within("rolled back")
		b.fill(t, "c")
		within("rolled back and full again")

		b.exec(t, "sh", "-c", "rm /srv/*")
		b.dropSnapshots(t)
		awaitThat(t, "what was deleted is not charged any more", func() bool { return b.charged(t) < diskLimit/4 })
		b.exec(t, "dd", "if=/dev/urandom", "of=/srv/again", "bs=1M", "count=8", "conv=fsync")
		b.exec(t, "rm", "/srv/again")
	}
	t.Logf("of %d bytes at most %d were charged; the pool grew by at most %d", diskLimit, most, mostGrown)
}

// playSnapshot takes a snapshot, which may be refused for want of room only.
func (b *box) playSnapshot(t *testing.T, name string) {
	t.Helper()
	res := b.try(t, "snapshot", "create", b.name, name)
	if res.err != nil && res.code != codeResource {
		t.Errorf("a snapshot of a full container: %v", res)
	}
	t.Logf("a snapshot of a full container: exit code %d %s", res.code, strings.TrimSpace(res.stderr))
}

// dropSnapshots deletes all there are, those that a rollback made too.
func (b *box) dropSnapshots(t *testing.T) {
	t.Helper()
	for _, name := range strings.Fields(b.ctctl(t, "--format", "ids", "snapshot", "list", b.name)) {
		b.ctctl(t, "snapshot", "delete", b.name, name)
	}
}

// A limit of the disk that is set anew holds at once for what runs, and one below what
// is in use is refused and changes nothing.
func TestADiskLimitGrowsAtOnceAndDoesNotShrinkBelowWhatIsUsed(t *testing.T) {
	r := open(t)
	b := r.create(t, "sleep", "infinity")
	r.ctctl(t, "set", b.name, "--disk", strconv.Itoa(diskLimit))
	r.ctctl(t, "start", b.name)
	pid := b.initPID(t)
	b.exec(t, "touch", "/srv/stubborn") // which is refused too when it is full
	b.fill(t, "a")

	// It is refused first, and goes on with the same file.
	const stubborn = `import errno, os, time
refused = 0
out = os.open("/srv/stubborn", os.O_WRONLY)
for _ in range(64):
    while True:
        try:
            os.write(out, os.urandom(1 << 18))
            os.fsync(out)
            break
        except OSError as e:
            if e.errno != errno.EDQUOT: raise
            refused += 1
            open("/dev/shm/refused", "w").close()
            time.sleep(0.02)
print(refused)`
	ended := make(chan result, 1)
	go func() { ended <- r.try(t, "exec", b.name, "--", "python3", "-c", stubborn) }()
	b.eventually(t, "", "test", "-e", "/dev/shm/refused")
	grown := time.Now()
	r.ctctl(t, "set", b.name, "--disk", strconv.Itoa(2*diskLimit))
	res := <-ended
	if refused, err := strconv.Atoi(strings.TrimSpace(res.stdout)); res.err != nil || err != nil || refused == 0 {
		t.Fatalf("the writer was refused %d times: %v", refused, res)
	}
	t.Logf("16 MiB were written %v after the limit began to grow", time.Since(grown).Round(time.Millisecond))
	if now := b.initPID(t); now != pid {
		t.Errorf("init was %s, now it is %s", pid, now)
	}

	used := b.charged(t) >> 20
	res = r.try(t, "set", b.name, "--disk", strconv.Itoa(diskLimit/2), "--pids", "123")
	if res.code != codeResource {
		t.Errorf("shrunk below what is in use: exit code %d wanted: %v", codeResource, res)
	}
	for _, figure := range []string{"24M ", fmt.Sprintf("%d MiB", used)} {
		if !strings.Contains(res.stderr, figure) {
			t.Errorf("the message does not have %q: %s", figure, res.stderr)
		}
	}
	u := b.usage(t)
	for name, want := range map[string]float64{"disk": 2 * diskLimit, "pids": 4096} {
		if got := u.limit(name); got != want {
			t.Errorf("after a refused change the limit of %s is %v, want %v", name, got, want)
		}
	}
	r.ctctl(t, "doctor", b.name) // the file agrees with the kernel

	b.exec(t, "sh", "-c", "rm /srv/*")
	awaitThat(t, "what was deleted is not charged any more", func() bool { return b.charged(t) < diskLimit/4 })
	r.ctctl(t, "set", b.name, "--disk", strconv.Itoa(diskLimit/2))
	if held := b.fill(t, "b"); held > diskLimit/2+diskSlack {
		t.Errorf("it holds %d bytes of %d", held, diskLimit/2)
	}
	r.ctctl(t, "set", b.name, "--disk", "none")
	b.exec(t, "dd", "if=/dev/zero", "of=/srv/more", "bs=1M", "count=32", "conv=fsync")
}

// limit of a resource; 0 is none.
func (u usageDocument) limit(resource string) float64 {
	for _, r := range u.Resources {
		if r.Resource == resource && r.Limit != nil {
			return *r.Limit
		}
	}
	return 0
}
