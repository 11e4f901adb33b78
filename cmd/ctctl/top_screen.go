package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// topScreen is what top shows, and what keys have made of it. It knows no terminal.
type topScreen struct {
	rows, cols int
	views      []topView
	order      string // column, "-" before it when descending
	offset     int    // rows scrolled away
	interval   time.Duration
	help       bool
	err        error // of the last look
	at         time.Time
	looks      int
}

// due is when the next look is; the second comes soon, as there are no rates before.
func (s *topScreen) due() time.Duration {
	every := s.interval
	if s.looks == 1 {
		every = min(every, 500*time.Millisecond)
	}
	return every - time.Since(s.at)
}

// topOrders are the columns that a key sorts by.
var topOrders = map[rune]string{
	'n': "name", 'c': "-cpu", 'm': "-memory", 'p': "-pids", 'i': "-read", 'w': "-write", 'd': "-disk", 'f': "-fails", 'u': "-uptime",
}

const (
	minInterval = 200 * time.Millisecond
	maxInterval = time.Hour
)

const topHelp = `keys:
   c m p d      sort by CPU, memory, processes, disk
   i w f u n    sort by bytes read, bytes written, limits hit, uptime, name
   < >          sort by the column to the left or right
   r            the other way round
   + -          look less, more often
   up down      scroll, also k and j; space looks now
   q            end
`

// Keys that terminals send as several bytes.
const (
	keyUp = rune(-1 - iota)
	keyDown
	keyRight
	keyLeft
	keyPageUp
	keyPageDown
	keyOther
)

var keyCodes = map[string]rune{
	"\x1b[A": keyUp, "\x1b[B": keyDown, "\x1b[C": keyRight, "\x1b[D": keyLeft, "\x1b[5~": keyPageUp, "\x1b[6~": keyPageDown,
	"\x1bOA": keyUp, "\x1bOB": keyDown, "\x1bOC": keyRight, "\x1bOD": keyLeft,
}

// keysOf parts what was typed. A lone escape is a key; what it begins otherwise is
// known or nothing.
func keysOf(typed []byte) (keys []rune) {
	for s := string(typed); s != ""; {
		if s[0] != 0x1b || len(s) == 1 {
			r := []rune(s)[0]
			keys, s = append(keys, r), s[len(string(r)):]
			continue
		}
		end := 2
		if s[1] == '[' || s[1] == 'O' {
			for end < len(s) && (s[end] < '@' || s[end] > '~') {
				end++
			}
			end = min(end+1, len(s))
		}
		key, known := keyCodes[s[:end]]
		if !known {
			key = keyOther
		}
		keys, s = append(keys, key), s[end:]
	}
	return keys
}

// press does what a key says. now asks for a look, quit for the end.
func (s *topScreen) press(key rune) (now, quit bool) {
	s.help = s.help && key == keyOther
	if order, ok := topOrders[key]; ok {
		s.order, s.offset = order, 0
		return false, false
	}
	switch key {
	case 'q', 'Q', 0x1b, 'C' & 0x1f, 'D' & 0x1f:
		return false, true
	case ' ', '\r':
		return true, false
	case 'h', '?':
		s.help = true
	case 'r':
		s.turn()
	case '<', keyLeft:
		s.shift(-1)
	case '>', keyRight:
		s.shift(1)
	case '+':
		s.interval = min(2*s.interval, maxInterval)
	case '-':
		s.interval = max(s.interval/2, minInterval)
	case 'k', keyUp:
		s.offset--
	case 'j', keyDown:
		s.offset++
	case keyPageUp:
		s.offset -= s.room()
	case keyPageDown:
		s.offset += s.room()
	}
	return false, false
}

func (s *topScreen) turn() {
	if name, down := strings.CutPrefix(s.order, "-"); down {
		s.order = name
	} else {
		s.order = "-" + s.order
	}
}

// shift sorts by a neighbouring column: figures from the largest on.
func (s *topScreen) shift(by int) {
	name := strings.TrimPrefix(s.order, "-")
	i := slices.IndexFunc(topColumns, func(c column[topView]) bool { return c.name == name })
	next := topColumns[(i+by+len(topColumns))%len(topColumns)]
	s.order = next.name
	if next.compare != nil {
		s.order = "-" + next.name
	}
	s.offset = 0
}

// room is how many containers there is place for, between two lines above and one below.
func (s *topScreen) room() int { return max(1, s.rows-4) }

// What a terminal is told.
const (
	topEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, no wrapping
	topLeave = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	toHome   = "\x1b[H"
	toEnd    = "\x1b[K\r\n" // of the line
	below    = "\x1b[J"
	inverse  = "\x1b[7m"
	plain    = "\x1b[m"
)

// draw gives the whole screen. Lines are written over, not cleared first, so that
// nothing flickers.
func (s *topScreen) draw() ([]byte, error) {
	if err := sortBy(s.views, topColumns, s.order); err != nil {
		return nil, err
	}
	body, err := s.table()
	if err != nil {
		return nil, err
	}
	lines := []string{s.summary(), ""}
	if s.err != nil {
		lines[1] = printable(strings.ReplaceAll(s.err.Error(), "\n", "; "))
	}
	lines = append(lines, body...)
	if s.help {
		lines = append(lines[:2], strings.Split(strings.TrimSuffix(topHelp, "\n"), "\n")...)
	}
	for len(lines) < s.rows-1 {
		lines = append(lines, "")
	}
	lines = append(lines[:max(0, s.rows-1)], fmt.Sprintf("every %s, by %s; h: keys, q: end", s.interval, s.order))
	var b bytes.Buffer
	b.WriteString(toHome)
	for i, line := range lines {
		line = clip(line, s.cols)
		if i == 2 && !s.help {
			line = inverse + line + strings.Repeat(" ", max(0, s.cols-len([]rune(line)))) + plain
		}
		b.WriteString(line)
		if i < len(lines)-1 {
			b.WriteString(toEnd)
		}
	}
	b.WriteString("\x1b[K" + below)
	return b.Bytes(), nil
}

// table gives the head and as many rows as there is place for.
func (s *topScreen) table() ([]string, error) {
	s.offset = max(0, min(s.offset, len(s.views)-s.room()))
	l := topListing()
	l.items = s.views
	sorted, down := strings.CutPrefix(s.order, "-")
	l.columns = slices.Clone(l.columns)
	for i, c := range l.columns {
		if c.name == sorted {
			l.columns[i].name += map[bool]string{true: "↓", false: "↑"}[down]
		}
	}
	var b bytes.Buffer
	if err := l.table(&b); err != nil {
		return nil, err
	}
	all := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	rows := all[1:]
	return append(all[:1:1], rows[s.offset:min(len(rows), s.offset+s.room())]...), nil
}

// summary is the line on top.
func (s *topScreen) summary() string {
	var cpu float64
	var memory, read, write int64
	for _, v := range s.views {
		cpu += v.CPUPercent
		memory += v.MemoryBytes
		read += v.ReadBPS
		write += v.WriteBPS
	}
	return fmt.Sprintf("%s  %d up  cpu %s  memory %s  read %s/s  written %s/s",
		s.at.Local().Format("15:04:05"), len(s.views), percentText(cpu), sizeText(memory), sizeText(read), sizeText(write))
}

// clip cuts a line at the terminal's edge. All that is shown is one cell wide.
func clip(line string, cols int) string {
	if r := []rune(line); len(r) > cols {
		return string(r[:max(0, cols)])
	}
	return line
}
