package main

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

func TestMedianIsTheMiddleOfTheSortedRuns(t *testing.T) {
	for _, tt := range []struct {
		runs sample
		want time.Duration
	}{
		{nil, 0},
		{sample{5 * ms}, 5 * ms},
		{sample{9 * ms, 1 * ms, 2 * ms}, 2 * ms},
		{sample{8 * ms, 1 * ms, 2 * ms, 4 * ms}, 3 * ms},
	} {
		if got := tt.runs.median(); got != tt.want {
			t.Errorf("median of %v: %v, want %v", tt.runs, got, tt.want)
		}
	}
}

func TestMedianLeavesTheOrderOfTheRunsAlone(t *testing.T) {
	s := sample{3 * ms, 1 * ms, 2 * ms}
	s.median()
	if diff := cmp.Diff(sample{3 * ms, 1 * ms, 2 * ms}, s); diff != "" {
		t.Error(diff)
	}
}

func TestRatioWithoutAFigureIsADash(t *testing.T) {
	for _, tt := range []struct {
		ours, theirs time.Duration
		want         string
	}{{3 * ms, 2 * ms, "1.50"}, {0, ms, "-"}, {ms, 0, "-"}} {
		if got := ratio(tt.ours, tt.theirs); got != tt.want {
			t.Errorf("ratio(%v, %v) = %q, want %q", tt.ours, tt.theirs, got, tt.want)
		}
	}
}

func TestPhasesOfOneRunAreAddedUpAndOtherLinesPassedOver(t *testing.T) {
	var p phases
	p.add("trace flush                        0.250 ms\ntrace criu dump                    1.500 ms\nan error\ntrace flush    0.750 ms\n")
	p.add("trace flush                        3.000 ms")
	if diff := cmp.Diff([]string{"flush", "criu dump"}, p.order); diff != "" {
		t.Error(diff)
	}
	want := map[string]sample{"flush": {ms, 3 * ms}, "criu dump": {1500 * time.Microsecond}}
	if diff := cmp.Diff(want, p.times); diff != "" {
		t.Error(diff)
	}
}

func TestTableAlignsTheFirstColumnLeftAndTheOthersRight(t *testing.T) {
	tab := table{title: "T", head: []string{"name", "x"}, rows: [][]string{{"a×", "100"}, {"longer", "1"}}, notes: []string{"note"}}
	var out bytes.Buffer
	if err := tab.print(&out); err != nil {
		t.Fatal(err)
	}
	want := "\nT\n\n     name       x\n     a×       100\n     longer     1\n  note\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefusesNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"-runs", "0"}, {"-sizes", "16,x"}, {"-sizes", "0"}, {"-sizes", ""}, {"word"},
	} {
		if o, err := parse(args); err == nil {
			t.Errorf("parse(%q) = %+v, want an error", args, o)
		}
	}
}

// echoServer answers on the loopback, but for the time between hold and go-on.
func echoServer(t *testing.T) (addr string, hold chan time.Duration) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	hold = make(chan time.Duration, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					select {
					case d := <-hold:
						time.Sleep(d)
					default:
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), hold
}

func TestLongestWaitSeesAServerThatPauses(t *testing.T) {
	addr, hold := echoServer(t)
	c, err := dial(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := longestWait(c, func() error { hold <- 80 * ms; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got < 80*ms {
		t.Errorf("longest wait %v, want at least the 80 ms of the pause", got)
	}
}

func TestLongestWaitTellsOfALostConnection(t *testing.T) {
	addr, _ := echoServer(t)
	c, err := dial(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := longestWait(c, c.Close); err == nil {
		t.Error("no error")
	}
}

func TestLongestGapSeesAServerThatPauses(t *testing.T) {
	addr, hold := echoServer(t)
	c, err := dial(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := longestGap(c, func() error { hold <- 80 * ms; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got < 80*ms {
		t.Errorf("longest gap %v, want at least the 80 ms of the pause", got)
	}
}

func TestOutageConnectsAnewWhenAConnectionIsDead(t *testing.T) {
	addr, hold := echoServer(t)
	got, err := outage(addr, func() error { hold <- time.Hour; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if got < givesUp {
		t.Errorf("outage %v, want at least the %v after which a connection counts as dead", got, givesUp)
	}
}
