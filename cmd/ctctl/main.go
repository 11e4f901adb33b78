// Command ctctl creates Linux containers that behave like small servers and can
// be checkpointed: snapshot, rollback, suspend and resume, memory included.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

var version = "dev" // set at build time

func main() {
	// What is written into a container's root has to be readable in there. Files
	// that are not for others get a mode that says so.
	unix.Umask(0o022)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: what it is called with, where it writes, its exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	app := newApp()
	app.Writer, app.ErrWriter = stdout, stderr
	words, err := arrange(app, args)
	if runsInside(err) {
		err = asExec(err)
	}
	if err == nil {
		err = app.RunContext(ctx, words)
	}
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if ctx.Err() != nil && (code == codeOther || code == codeTimeout) {
		code = codeInterrupted
	}
	complain(stderr, err)
	return code
}

// complain prints an error, each of several on a line of its own with its hint.
func complain(w io.Writer, err error) {
	for _, e := range several(err) {
		if msg := message(e); msg != "" {
			fmt.Fprintln(w, "ctctl: "+msg)
		}
		if h := hint(e); h != "" {
			fmt.Fprintln(w, "hint: "+h)
		}
	}
}
