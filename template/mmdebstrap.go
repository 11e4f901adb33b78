package template

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// keptLines of the output are looked at after a failure. What matters is
	// near the end; mmdebstrap repeats the output of a failed step there.
	keptLines    = 400
	maxLineBytes = 2000
	maxDecisive  = 12
	waitDelay    = 10 * time.Second
)

// standardPath is added to PATH, where cron leaves out the directories that hold
// chroot and dpkg's programs.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func findMmdebstrap() (string, error) {
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrToolMissing, err)
	}
	return tool, nil
}

// mmdebstrap is one run of the program.
type mmdebstrap struct {
	tool     string
	args     []string
	suite    string
	scratch  string // for its temporary files
	progress func(string)
}

func (r mmdebstrap) run(ctx context.Context) error {
	out := &outputLines{progress: r.progress}
	cmd := exec.CommandContext(ctx, r.tool, r.args...)
	cmd.Env = r.environment()
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out // one goroutine writes both
	cmd.WaitDelay = waitDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// As process 1 of its pid namespace it takes all its descendants with
		// it, also those that left its session; waiting for it is waiting for
		// all. Its mounts go with the last of them.
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
	}
	// PR_SET_PDEATHSIG is about the thread that started the child (prctl(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	out.flush()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("mmdebstrap was stopped: %w", context.Cause(ctx))
	}
	return explain(r.suite, out.lines, err)
}

// environment has what apt needs to reach the mirror and nothing that changes
// what is installed.
func (r mmdebstrap) environment() []string {
	env := []string{
		"LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "TMPDIR=" + r.scratch,
		"PATH=" + strings.TrimPrefix(os.Getenv("PATH")+":"+standardPath, ":"),
	}
	for _, name := range []string{"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"} {
		for _, name := range []string{name, strings.ToUpper(name)} {
			if value, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+value)
			}
		}
	}
	return env
}

// outputLines keeps the last lines of an output and reports the steps.
type outputLines struct {
	progress func(string)
	lines    []string
	rest     []byte
}

// Write never fails: the program must not die of what we can't keep.
func (o *outputLines) Write(b []byte) (int, error) {
	o.rest = append(o.rest, b...)
	for {
		end := bytes.IndexByte(o.rest, '\n')
		if end < 0 {
			break
		}
		o.line(string(o.rest[:end]))
		o.rest = o.rest[end+1:]
	}
	if len(o.rest) > maxLineBytes {
		o.flush()
	}
	return len(b), nil
}

func (o *outputLines) flush() {
	if len(o.rest) > 0 {
		o.line(string(o.rest))
		o.rest = nil
	}
}

func (o *outputLines) line(s string) {
	s = printable(s[:min(len(s), maxLineBytes)])
	if len(o.lines) == keptLines {
		o.lines = slices.Delete(o.lines, 0, 1)
	}
	o.lines = append(o.lines, s)
	if step, ok := strings.CutPrefix(s, "I: "); ok && !strings.HasPrefix(step, "main() received signal") {
		o.progress(strings.TrimSuffix(step, "..."))
	}
}

// printable escapes what could play tricks on a terminal.
func printable(s string) string {
	quoted := strconv.QuoteToGraphic(strings.TrimRight(s, "\r"))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// explain finds in the output what a person needs to know.
func explain(suite string, lines []string, err error) error {
	cause := fmt.Errorf("it ended with %w", err)
	text := strings.Join(lines, "\n")
	for _, known := range []struct {
		is     error
		phrase string
	}{
		{ErrPackage, "E: Unable to locate package"},
		{ErrPackage, "has no installation candidate"},
		{ErrPackage, "was not found\n"}, // E: Version '1' for 'x' was not found
		{ErrPackage, "unmet dependencies"},
		{ErrPackage, "dpkg: error processing"},
		{ErrMirror, "does not have a Release file"},
		{ErrMirror, "NO_PUBKEY"},
		{ErrMirror, "is not signed"},
		{ErrMirror, "E: Failed to fetch"},
		{ErrMirror, " is expired (invalid since"},
	} {
		if strings.Contains(text, known.phrase) {
			cause = fmt.Errorf("%w (exit: %w)", known.is, err)
			break
		}
	}
	return &BuildError{Suite: suite, Lines: decisive(lines), Err: cause}
}

// decisive picks apt's and dpkg's errors and the lines that explain them. When
// there are none it takes the last lines: better too much than nothing.
func decisive(lines []string) []string {
	var picked []string
	block := false // within an explanation, whose lines are indented
	for _, line := range lines {
		indented := strings.HasPrefix(line, " ")
		if block = block && indented; !block && !isError(line) {
			continue
		}
		block = block || !strings.HasPrefix(line, "E: ")
		if line = strings.TrimSpace(line); !slices.Contains(picked, line) {
			picked = append(picked, line)
		}
	}
	if len(picked) == 0 {
		picked = lines[max(0, len(lines)-3):]
	}
	return picked[:min(len(picked), maxDecisive)]
}

func isError(line string) bool {
	switch {
	case strings.HasPrefix(line, "E: mmdebstrap failed to run"),
		strings.HasPrefix(line, "E: setup failed"),
		strings.HasPrefix(line, "E: apt-get "),
		strings.HasPrefix(line, "E: Sub-process "),
		strings.HasPrefix(line, "E: Some index files failed"),
		strings.HasPrefix(line, "E: run_chroot failed"):
		return false
	case strings.HasPrefix(line, "E: "), strings.HasPrefix(line, "dpkg: error"),
		strings.HasPrefix(line, "W: GPG error"):
		return true
	}
	return strings.HasPrefix(line, "The following packages have unmet dependencies") ||
		strings.HasPrefix(line, "dpkg: dependency problems")
}
