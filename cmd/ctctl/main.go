// Command ctctl creates Linux containers that behave like small servers and can
// be checkpointed: snapshot, rollback, suspend and resume, memory included.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

var version = "dev" // set at build time

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := newApp().RunContext(ctx, os.Args)
	if err == nil {
		return 0
	}
	code := exitCode(err)
	if ctx.Err() != nil && code == 1 {
		code = codeInterrupted
	}
	if msg := message(err); msg != "" {
		fmt.Fprintln(os.Stderr, "ctctl: "+msg)
	}
	if h := hint(err); h != "" {
		fmt.Fprintln(os.Stderr, "hint: "+h)
	}
	return code
}
