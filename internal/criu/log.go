package criu

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// logTail is how much of a log's end is read: the cause of a failure
	// stands near it, and logs of large trees are long.
	logTail = 4 << 20
	// blockGap is how many other lines may stand between the error lines
	// of one cause.
	blockGap = 8
	// mostLines bounds the decisive lines.
	mostLines = 12
	// longestLine bounds one of them, in bytes.
	longestLine = 1024
)

// logLine is an error line of a CRIU log.
type logLine struct {
	number  int    // in the log
	message string // escaped, without time stamp and source position
	kind    lineKind
	pid     int        // who writes, in a restore
	at      descriptor // what a dump was at
}

// descriptor is one that a dump tells of before it looks at it.
type descriptor struct{ pid, fd int }

type lineKind int

const (
	decisive lineKind = iota
	// consequent lines only say that something failed, after the cause.
	consequent
	// hint lines are warnings that stand also where all went well, and are
	// the only trace of a cause sometimes.
	hint
	// harmless lines appear in runs that succeed, too.
	harmless
)

// errorLine matches "(00.04) Error (criu/x.c:1): message", with a pid after
// the time stamp in a restore, the parasite's "pie: 1: Error (…): …", and
// what is written to stderr before there is a log, which has no time stamp.
var errorLine = regexp.MustCompile(`^(?:\(\d+\.\d+\)|pie:)?\s*(?:(\d+): ?)?\s*(Error|Warn ) \([^)]*\): ?(.*)$`)

// atLine matches what a dump says before it saves a descriptor: "(00.01) 4711
// fdinfo 3: pos: …".
var atLine = regexp.MustCompile(`^\(\d+\.\d+\) (\d+) fdinfo (\d+): `)

// kinds tells lines that are no cause. Everything else is one.
var kinds = []struct {
	text string
	kind lineKind
}{
	// Of an epoll it says no more than this.
	{"Dump eventpoll", decisive},

	// Without CAP_SYS_RESOURCE CRIU goes on with the limit that it has.
	{"rlimit: Can't setup RLIMIT_NOFILE for self", harmless},
	// With another way of locking the network these programs are not needed.
	{"iptables", harmless},
	{"ip6tables", harmless},

	{"Dumping FAILED", consequent},
	{"Pre-dumping FAILED", consequent},
	{"Restoring FAILED", consequent},
	{"failed with -1", consequent},
	{"One of more action scripts failed", consequent},
	{" killed by signal ", consequent},
	{" exited, status=", consequent},
	{"Can't retrieve FD", consequent},
	{"Message reply from daemon is trimmed", consequent},
	{"Namespaces dumping finished with error", consequent},
	{"Unable to open fd=", consequent},
	{"Unable to detach from", consequent},
	// Zombies cause it, too.
	{"Unable to interrupt task", hint},
}

func lineKindOf(message string) lineKind {
	for _, k := range kinds {
		if strings.Contains(message, k.text) {
			return k.kind
		}
	}
	return decisive
}

// newError makes the error of a failed operation from CRIU's log, or from
// what it wrote to stderr when it did not come as far as a log.
func newError(op, logPath string, stderr []byte, err error) *Error {
	e := &Error{Op: op, FD: -1, Err: err}
	var text []byte
	if logPath != "" {
		if b, rerr := readTail(logPath, logTail); rerr == nil {
			text, e.Log = b, logPath
		}
	}
	if len(text) == 0 {
		text = stderr
	}
	e.diagnose(text)
	return e
}

// diagnose fills in what the log tells.
func (e *Error) diagnose(log []byte) {
	e.FD = -1
	block := decisiveLines(parseErrors(log))
	for _, l := range block {
		e.Lines = append(e.Lines, l.message)
	}
	// In a dump it is the parasite that is numbered, as its namespace sees it.
	if e.PID = pidOf(e.Lines); e.PID == 0 && len(block) > 0 && e.Op == "restore" {
		e.PID = block[0].pid
	}
	e.FD = descriptorOf(block, e.PID)
	e.Command = commandOf(log, e.PID)
	for _, message := range e.Lines {
		if p := lookup(message); p != nil {
			e.Object, e.Cure, e.transient = p.object+addressOf(log, message), p.cure, p.transient
			return
		}
	}
}

// parseErrors returns the error lines of a log.
func parseErrors(log []byte) []logLine {
	var lines []logLine
	var at descriptor
	for n := 0; len(log) > 0; n++ {
		var raw []byte
		raw, log, _ = bytes.Cut(log, []byte("\n"))
		if len(raw) > longestLine {
			raw = raw[:longestLine]
		}
		if m := atLine.FindSubmatch(raw); m != nil {
			at = descriptor{pid: number(m[1]), fd: number(m[2])}
		}
		m := errorLine.FindSubmatch(raw)
		if m == nil {
			continue
		}
		message := escape(strings.TrimSpace(string(m[3])))
		kind := lineKindOf(message)
		if message == "" || (string(m[2]) == "Warn " && kind != hint) {
			continue
		}
		lines = append(lines, logLine{number: n, message: message, kind: kind, pid: number(m[1]), at: at})
	}
	return lines
}

// number reads digits; 0 when there are none, or too many.
func number(digits []byte) int {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return 0
	}
	return n
}

// decisiveLines returns the last group of error lines that holds a known
// cause, then the last that holds any: cleaning up after a failure may fail,
// too. When no line is a cause, it returns a hint or the consequences.
func decisiveLines(lines []logLine) []logLine {
	is := func(kind lineKind) func(logLine) bool { return func(l logLine) bool { return l.kind == kind } }
	if slices.ContainsFunc(lines, is(decisive)) {
		lines = slices.DeleteFunc(lines, is(hint))
	}
	last := lastOf(lines, is(decisive))
	for _, kind := range []lineKind{hint, consequent} {
		if last < 0 {
			last = lastOf(lines, is(kind))
		}
	}
	if last < 0 {
		return nil
	}
	first, end := blockAround(lines, last)
	block := lines[first:end]
	known := lastOf(lines, func(l logLine) bool { return l.kind == decisive && lookup(l.message) != nil })
	if known >= 0 && known < first {
		from, to := blockAround(lines, known)
		block = slices.Concat(lines[from:to], block)
	}
	return distinct(block)
}

func lastOf(lines []logLine, is func(logLine) bool) int {
	for i, l := range slices.Backward(lines) {
		if is(l) {
			return i
		}
	}
	return -1
}

// blockAround returns the bounds of the group of lines that line i is in.
func blockAround(lines []logLine, i int) (first, end int) {
	first, end = i, i+1
	for first > 0 && lines[first].number-lines[first-1].number <= blockGap {
		first--
	}
	for end < len(lines) && lines[end].number-lines[end-1].number <= blockGap {
		end++
	}
	return first, end
}

// distinct drops harmless and repeated lines and bounds the rest.
func distinct(lines []logLine) []logLine {
	seen := map[string]bool{}
	var out []logLine
	for _, l := range lines {
		if l.kind == harmless || seen[l.message] || len(out) == mostLines {
			continue
		}
		seen[l.message] = true
		out = append(out, l)
	}
	return out
}

// pidPatterns find the process that a message speaks of.
var pidPatterns = []*regexp.Regexp{
	regexp.MustCompile(`\(pid: (\d+)\)`),
	regexp.MustCompile(`Unseizable non-zombie (\d+) found`),
	regexp.MustCompile(`Unable to interrupt task: (\d+)`),
	regexp.MustCompile(`nested \w+ namespace for (\d+)`),
	regexp.MustCompile(`session leader of (?:zombie process )?(\d+)\(`),
	regexp.MustCompile(`zombie (\d+) \(comm`),
}

func pidOf(messages []string) int {
	for _, message := range messages {
		for _, re := range pidPatterns {
			m := re.FindStringSubmatch(message)
			if m == nil {
				continue
			}
			if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

// inetSocket is the line with which CRIU begins to restore a socket.
var inetSocket = regexp.MustCompile(`Restore: family AF_INET6? .* port +(\d+) state .* src_addr ([0-9a-fA-F.:]+)`)

// addressOf is the address and port of the socket that a message is about, which
// names neither.
func addressOf(log []byte, message string) string {
	if !strings.Contains(message, "inet socket") {
		return ""
	}
	before, _, _ := bytes.Cut(log, []byte(message))
	all := inetSocket.FindAllSubmatch(before, -1)
	if len(all) == 0 {
		return ""
	}
	last := all[len(all)-1]
	return fmt.Sprintf(" (%s, port %s)", last[2], last[1])
}

// readTail returns at most the last n bytes of a file, from a line's start.
func readTail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	skip := max(0, st.Size()-n)
	b, err := io.ReadAll(io.NewSectionReader(f, skip, n))
	if err != nil {
		return nil, err
	}
	if skip > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, nil
}

// escape makes text from outside safe to print: control characters and bytes
// that are not UTF-8 become escape sequences.
func escape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		char, rest := s[:n], s[n:]
		if r == '\t' || (r != unicode.ReplacementChar && unicode.IsPrint(r)) {
			b.WriteString(char)
		} else {
			q := strconv.QuoteToASCII(char)
			b.WriteString(q[1 : len(q)-1])
		}
		s = rest
	}
	return b.String()
}
