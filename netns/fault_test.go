package netns

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// faultAt makes the step number n fail, and tells whether there was one.
func faultAt(n int) (context.Context, *bool) {
	met := false
	return context.WithValue(ctx, faultKey{}, func(what string) error {
		if n--; n == -1 {
			met = true
			return fmt.Errorf("injected into %s", what)
		}
		return nil
	}), &met
}

func TestFaultAtAnyStepLeavesNothingHalfDone(t *testing.T) {
	h := requireHost(t)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	ct := newSpace(t, true)
	defer func() { must(t, Forget(ctx)) }()
	for name, op := range map[string]struct {
		prepare func()
		do      func(context.Context) error
	}{
		"attach":               {func() { must(t, Leave(ctx, c, false)) }, func(ctx context.Context) error { return Attach(ctx, ct.pid, c) }},
		"join":                 {func() { must(t, Leave(ctx, c, false)); must(t, Attach(ctx, ct.pid, c)) }, func(ctx context.Context) error { return Join(ctx, c) }},
		"join over blackholes": {func() { must(t, Leave(ctx, c, true)); must(t, Attach(ctx, ct.pid, c)) }, func(ctx context.Context) error { return Join(ctx, c) }},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				op.prepare()
				before := routesAndLinks(t, h)
				faulty, met := faultAt(n)
				err := op.do(faulty)
				if !*met {
					must(t, err)
					if n < 5 {
						t.Fatalf("only %d steps", n)
					}
					break
				}
				if err == nil || !strings.Contains(err.Error(), "injected") {
					t.Fatalf("step %d: got %v", n, err)
				}
				if diff := cmp.Diff(before, routesAndLinks(t, h)); diff != "" {
					t.Fatalf("%v:\n%s", err, diff)
				}
				must(t, op.do(ctx))
			}
			must(t, Leave(ctx, c, false))
		})
	}
}

// routesAndLinks is what a failed operation has to restore.
func routesAndLinks(t testing.TB, h *netlink.Handle) []string {
	t.Helper()
	var lines []string
	for _, line := range strings.Split(inventory(t, h), "\n") {
		if strings.HasPrefix(line, "link") || strings.HasPrefix(line, "route") {
			lines = append(lines, line)
		}
	}
	return lines
}

// What the waits are for shows only on a busy machine, so that the steps are
// looked at instead.
func TestBothEndsAreWaitedForLast(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	t.Cleanup(func() { must(t, Leave(ctx, c, false)); must(t, Forget(ctx)) })
	last := func(op func(context.Context) error, n int) []string {
		var steps []string
		must(t, op(context.WithValue(ctx, faultKey{}, func(what string) error {
			steps = append(steps, what)
			return nil
		})))
		return steps[len(steps)-n:]
	}
	attached := last(func(ctx context.Context) error { return Attach(ctx, ct.pid, c) }, 2)
	k := kernelOf(t)
	link, _, err := k.linkNamed(c.hostLink(0))
	must(t, err)
	if ready, err := k.peerReady(link); ready || err != nil {
		t.Errorf("before Join the container's end is ready, or: %v", err)
	}
	start := time.Now()
	must(t, k.awaitPeer(link))
	if took := time.Since(start); took < patience {
		t.Errorf("waited %v", took)
	}
	joined := last(func(ctx context.Context) error { return Join(ctx, c) }, 2)
	want := [][]string{{"add route ::/0 via fe80::1 in the container", "wait for fd09::5"}, {"wait for the container's end", "wait for fe80::1"}}
	if diff := cmp.Diff(want, [][]string{attached, joined}); diff != "" {
		t.Error(diff)
	}
}

func TestLeaveGoesOnAfterAFault(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.Interfaces[0].NAT = true
	clean := inventory(t, h)
	for _, blackhole := range []bool{false, true} {
		for n := 0; ; n++ {
			must(t, Attach(ctx, ct.pid, c))
			must(t, Join(ctx, c))
			faulty, met := faultAt(n)
			err := Leave(faulty, c, blackhole)
			if *met == (err == nil) {
				t.Fatalf("step %d: got %v", n, err)
			}
			must(t, Leave(ctx, c, false))
			must(t, Forget(ctx))
			if after := inventory(t, h); after != clean {
				t.Fatalf("step %d: before:\n%s\nafter:\n%s", n, clean, after)
			}
			if !*met {
				break
			}
		}
	}
}
