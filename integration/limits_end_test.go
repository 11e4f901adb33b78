package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is killed ends when its last write has been done, which a limit must not hold up
// for minutes.
func TestAContainerEndsThoughItsWritesStandInAQueue(t *testing.T) {
	r := open(t)
	b := r.create(t, "sleep", "infinity")
	r.ctctl(t, "start", b.name)
	b.setOrSkip(t, "--io-write", "pool=128KiB/s") // more than four minutes for what follows
	ended := make(chan result, 1)
	go func() {
		ended <- r.try(t, "exec", b.name, "--", "dd", "if=/dev/zero", "of=/srv/f", "bs=32M", "count=1", "oflag=direct")
	}()
	awaitThat(t, "it waits for the disk", func() bool { return b.waitsForDisk(t) })
	r.ctctl(t, "destroy", "--force", b.name)
	b.wantGone(t)
	if res := <-ended; res.err == nil {
		t.Errorf("32 MiB were written: %v", res)
	}
}

// waitsForDisk tells whether any task of a container is in state D.
func (b *box) waitsForDisk(t *testing.T) bool {
	t.Helper()
	pids, err := os.ReadFile(b.cgroupFile(t, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	for pid := range strings.FieldsSeq(string(pids)) {
		if stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat")); err == nil && stateOf(string(stat)) == 'D' {
			return true
		}
	}
	return false
}
