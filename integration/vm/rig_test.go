//go:build vm

package vmrig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The rig's own abilities, on one machine: what other tests rely on.
func TestAMachineCanBeLedThroughAllThatHappensToMachines(t *testing.T) {
	g := booted(t)
	ctx := t.Context()

	content := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	if err := g.Put(ctx, bytes.NewReader(content), "/var/tmp/put", 0o640); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := g.Get(ctx, "/var/tmp/put", &back); err != nil || !bytes.Equal(back.Bytes(), content) {
		t.Errorf("a file came back with %d bytes of %d (%v)", back.Len(), len(content), err)
	}
	if r := g.try(t, Command{Args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}}); r.Code != 3 || r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("exit code, output and errors are %+v", r)
	}
	if _, err := g.Run(ctx, Command{Args: []string{"sleep", "1h"}, Timeout: 2 * time.Second}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a command that takes too long: %v", err)
	}
	g.eventually(t, "! pgrep -x sleep")

	if err := g.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Run(ctx, Command{Args: []string{"true"}, Timeout: 2 * time.Second}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a frozen machine answers: %v", err)
	}
	if err := g.Continue(); err != nil {
		t.Fatal(err)
	}
	g.sh(t, "true")
	g.plugAndFill(t)

	before, err := g.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	g.sh(t, "echo kept >/var/tmp/kept; sync /var/tmp/kept /var/tmp")
	if err := g.Reset(); err != nil {
		t.Fatal(err)
	}
	if err := g.awaitReboot(ctx, before); err != nil {
		t.Fatal(err)
	}
	if got := g.sh(t, "cat /var/tmp/kept"); got != "kept\n" {
		t.Errorf("after the reset: %q", got)
	}
	g.into(t, clean)
	g.sh(t, fmt.Sprintf("test ! -e /var/tmp/kept; test $(date +%%s) -ge %d", time.Now().Add(-time.Minute).Unix()))
}

// plugAndFill adds a small disk while the machine runs, fills it up, and makes
// the root disk slow.
func (g *guest) plugAndFill(t *testing.T) {
	t.Helper()
	r := rig(t)
	dir := filepath.Join(r.Dir, "small")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	small, err := r.Disk(context.WithoutCancel(t.Context()), "small.ext4", dir, "16M")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Plug(Disk{Path: small, Serial: "small", Writable: true}); err != nil {
		t.Fatal(err)
	}
	g.eventually(t, "test -e /dev/disk/by-id/virtio-small")
	g.sh(t, "mount /dev/disk/by-id/virtio-small /mnt; grep hello /mnt/hello; ! dd if=/dev/zero of=/mnt/full bs=1M; umount /mnt")
	if err := g.Throttle(2 << 20); err != nil {
		t.Fatal(err)
	}
	took := g.try(t, Command{Args: []string{"dd", "if=/dev/urandom", "of=/var/tmp/slow", "bs=1M", "count=12", "oflag=direct"}}).Took
	if took < 4*time.Second {
		t.Errorf("12 MiB at 2 MiB/s took %v", took)
	}
	if err := g.Throttle(0); err != nil {
		t.Fatal(err)
	}
}

// Two machines see each other until the cable is pulled, which neither is told,
// or the link goes down, which its machine is.
func TestTwoMachinesOnASwitch(t *testing.T) {
	r := rig(t)
	image, err := trixie()
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSwitch(t.Context(), "vmdata")
	if err != nil {
		t.Fatal(err)
	}
	var pair []*guest
	t.Cleanup(func() {
		for _, g := range pair {
			if err := g.PowerCut(); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"a", "b"} {
		c, err := s.Cable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g := &guest{r.Machine(Config{Name: name, Image: image, CPUs: 1, MemoryMiB: 1024, Cables: []Cable{c}})}
		g.keepLogs(t)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		pair = append(pair, g)
	}
	for i, g := range pair {
		if _, err := g.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.awaitSystem(t)
		g.address(t, g.Cables[0], []string{"192.0.2.1/24", "192.0.2.2/24"}[i])
	}
	a, b := pair[0], pair[1]
	reach := "ping -c 1 -W 5 192.0.2.2"
	a.eventually(t, reach)
	a.sh(t, "tc qdisc add dev data root netem delay 300ms; ping -c 1 -W 9 192.0.2.2 | grep -E 'time=[3-9][0-9][0-9]|time=[0-9]{4}'; tc qdisc del dev data root")

	if err := s.Pull(t.Context(), b.Cables[0]); err != nil {
		t.Fatal(err)
	}
	a.sh(t, "! "+reach)
	b.sh(t, "ip link show data | grep LOWER_UP")
	if err := s.Connect(t.Context(), b.Cables[0]); err != nil {
		t.Fatal(err)
	}
	a.eventually(t, reach)
	if err := b.SetLink(0, false); err != nil {
		t.Fatal(err)
	}
	b.eventually(t, "ip link show data | grep NO-CARRIER")
	a.sh(t, "! "+reach)
	if err := b.SetLink(0, true); err != nil {
		t.Fatal(err)
	}
	a.eventually(t, reach)
}

// address names the interface of a cable "data" and gives it an address.
func (g *guest) address(t testing.TB, c Cable, address string) {
	t.Helper()
	g.sh(t, strings.NewReplacer("MAC", c.MAC, "ADDRESS", address).Replace(
		"udevadm settle; dev=$(basename $(dirname $(grep -l MAC /sys/class/net/*/address))); ip link set $dev down; ip link set $dev name data; ip address add ADDRESS dev data; ip link set data up"))
}
