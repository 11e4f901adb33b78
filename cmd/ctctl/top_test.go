package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testScreen(containers int) *topScreen {
	s := &topScreen{rows: 10, cols: 60, order: "-cpu", interval: 2 * time.Second, at: noon}
	for i := range containers {
		s.views = append(s.views, topView{Name: fmt.Sprintf("ct%02d", i), CPUPercent: float64(i), MemoryBytes: int64(containers-i) << 20})
	}
	return s
}

// lines is what the screen shows, without what is for the terminal alone.
func (s *topScreen) lines(t *testing.T) []string {
	t.Helper()
	b, err := s.draw()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(b), toHome) {
		t.Errorf("it does not begin at the top: %q", b)
	}
	text := regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`).ReplaceAllString(string(b), "")
	return strings.Split(text, "\r\n")
}

func (s *topScreen) names(t *testing.T) string {
	t.Helper()
	return strings.Join(regexp.MustCompile(`ct\d\d`).FindAllString(strings.Join(s.lines(t), " "), -1), " ")
}

func (s *topScreen) type_(text string) (now, quit bool) {
	for _, k := range keysOf([]byte(text)) {
		n, q := s.press(k)
		now, quit = now || n, quit || q
	}
	return now, quit
}

func TestTheScreenIsFilledAndNeverExceeded(t *testing.T) {
	for _, containers := range []int{0, 1, 5, 100} {
		for _, size := range [][2]int{{24, 80}, {10, 60}, {5, 20}, {3, 10}, {1, 1}, {0, 0}} {
			s := testScreen(containers)
			s.rows, s.cols = size[0], size[1]
			s.err = errors.New("one can't be read\nbecause \x1b[31m")
			for _, help := range []bool{false, true} {
				s.help = help
				lines := s.lines(t)
				if len(lines) != max(1, s.rows) {
					t.Errorf("%d containers, %v: %d lines", containers, size, len(lines))
				}
				for _, l := range lines {
					if n := len([]rune(l)); n > s.cols {
						t.Errorf("%v: %d cells: %q", size, n, l)
					}
				}
			}
		}
	}
}

func TestKeysSortAndScroll(t *testing.T) {
	const room = 6
	for _, tt := range []struct{ keys, first, last string }{
		{"", "ct19", "ct14"},
		{"n", "ct00", "ct05"},
		{"nr", "ct19", "ct14"},
		{"m", "ct00", "ct05"},
		{"jj", "ct17", "ct12"},
		{"\x1b[B\x1b[B\x1b[A", "ct18", "ct13"},
		{"\x1b[6~", "ct13", "ct08"},
		{"\x1b[6~\x1b[6~\x1b[6~\x1b[6~", "ct05", "ct00"},
		{"kkk", "ct19", "ct14"},
		{"<", "ct00", "ct05"}, // name is left of cpu
		{">", "ct00", "ct05"}, // memory is right of it
		{"\x1b[C\x1b[D", "ct19", "ct14"},
		{"\x1b[99~x", "ct19", "ct14"}, // unknown keys do nothing
		{"nc", "ct19", "ct14"},
	} {
		s := testScreen(20)
		s.lines(t)
		now, quit := s.type_(tt.keys)
		names := strings.Fields(s.names(t))
		if now || quit || len(names) != room || names[0] != tt.first || names[room-1] != tt.last {
			t.Errorf("%q: got %v (now %v, quit %v), want %s to %s", tt.keys, names, now, quit, tt.first, tt.last)
		}
	}
}

func TestKeysEndLookAndChangeTheInterval(t *testing.T) {
	for keys, want := range map[string][2]bool{
		"q": {false, true}, "\x03": {false, true}, "\x1b": {false, true}, " ": {true, false}, "\r": {true, false}, "x": {false, false}, "\x1b[A": {false, false},
		"é": {false, false},
	} {
		now, quit := testScreen(1).type_(keys)
		if got := [2]bool{now, quit}; got != want {
			t.Errorf("%q: got %v, want %v", keys, got, want)
		}
	}
	s := testScreen(1)
	s.type_("++")
	if s.interval != 8*time.Second {
		t.Errorf("slower: %v", s.interval)
	}
	s.type_(strings.Repeat("-", 30))
	if s.interval != minInterval {
		t.Errorf("fastest: %v", s.interval)
	}
	s.type_(strings.Repeat("+", 60))
	if s.interval != maxInterval {
		t.Errorf("slowest: %v", s.interval)
	}
}

func TestTheSortedColumnIsMarkedAndHelpTellsOfEveryKey(t *testing.T) {
	s := testScreen(3)
	s.cols = 200
	for keys, want := range map[string]string{"": "CPU↓", "m": "MEMORY↓", "n": "NAME↑", "nr": "NAME↓", "f": "FAILS↓"} {
		s.order = "-cpu"
		s.type_(keys)
		if head := s.lines(t)[2]; !strings.Contains(head, want) {
			t.Errorf("%q: no %s in %q", keys, want, head)
		}
	}
	s.rows = 24
	s.type_("h")
	help := strings.Join(s.lines(t), "\n")
	for key := range topOrders {
		if !regexp.MustCompile(`(?m)^ {3}[a-z ]*\b` + string(key) + `\b`).MatchString(help) {
			t.Errorf("help does not tell of %c", key)
		}
	}
	s.type_("x")
	if strings.Contains(strings.Join(s.lines(t), "\n"), "keys:") {
		t.Error("help stays")
	}
}

func TestWithoutAnEarlierLookThereAreNoRates(t *testing.T) {
	views := fixedTop()
	type rates struct{ CPU, Throttled float64 }
	got := []rates{{views[0].CPUPercent, views[0].Throttled}, {views[1].CPUPercent, views[1].Throttled}}
	if diff := cmp.Diff([]rates{{50, 0}, {0, 0}}, got); diff != "" {
		t.Error(diff)
	}
	first := topOf(fixedUsage(), fixedUsage().Now)
	if first.CPUPercent != 0 {
		t.Errorf("in no time: %v", first.CPUPercent)
	}
}
