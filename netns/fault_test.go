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
	c.NAT = true
	ct := newSpace(t, true)
	defer func() { must(t, Forget(ctx)) }()
	for name, op := range map[string]struct {
		prepare func()
		do      func(context.Context) error
	}{
		"attach":               {func() { must(t, leave(ctx, c, false)) }, func(ctx context.Context) error { return attach(ctx, ct.pid, c) }},
		"join":                 {func() { must(t, leave(ctx, c, false)); must(t, attach(ctx, ct.pid, c)) }, func(ctx context.Context) error { return join(ctx, c) }},
		"join over blackholes": {func() { must(t, leave(ctx, c, true)); must(t, attach(ctx, ct.pid, c)) }, func(ctx context.Context) error { return join(ctx, c) }},
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
			must(t, leave(ctx, c, false))
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
	conn, err := openFilter(0)
	must(t, err)
	defer func() { must(t, conn.CloseLasting()) }()
	entries, _, err := natEntries(conn)
	must(t, err)
	return append(lines, fmt.Sprint(len(entries), " NAT entries"))
}

// What the waits are for shows only on a busy machine, so that the steps are
// looked at instead.
func TestBothEndsAreWaitedForLast(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	t.Cleanup(func() { must(t, leave(ctx, c, false)) })
	last := func(op func(context.Context) error, n int) []string {
		var steps []string
		must(t, op(context.WithValue(ctx, faultKey{}, func(what string) error {
			steps = append(steps, what)
			return nil
		})))
		return steps[len(steps)-n:]
	}
	attach := last(func(ctx context.Context) error { return attach(ctx, ct.pid, c) }, 2)
	link, err := h.LinkByName(c.Name)
	must(t, err)
	if ready, err := peerReady(link); ready || err != nil {
		t.Errorf("before Join the container's end is ready, or: %v", err)
	}
	start := time.Now()
	must(t, awaitPeer(link))
	if took := time.Since(start); took < patience || took > 10*patience {
		t.Errorf("waited %v", took)
	}
	join := last(func(ctx context.Context) error { return join(ctx, c) }, 2)
	want := [][]string{{"wait for 10.9.0.5", "wait for fd09::5"}, {"wait for fe80::1", "wait for the container's end"}}
	if diff := cmp.Diff(want, [][]string{attach, join}); diff != "" {
		t.Error(diff)
	}
}

func TestLeaveGoesOnAfterAFault(t *testing.T) {
	h := requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	c.NAT = true
	clean := inventory(t, h)
	for _, blackhole := range []bool{false, true} {
		for n := 0; ; n++ {
			must(t, attach(ctx, ct.pid, c))
			must(t, join(ctx, c))
			faulty, met := faultAt(n)
			err := leave(faulty, c, blackhole)
			if *met == (err == nil) {
				t.Fatalf("step %d: got %v", n, err)
			}
			must(t, leave(ctx, c, false))
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
