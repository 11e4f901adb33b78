// Command bench measures ctctl against the plain tools it stands beside: starting
// against runc and crun, snapshots, rollback, suspend and resume against CRIU by
// itself, and a change of addresses on a host with one container against one with
// many. It prints medians and ratios and judges nothing.
//
//	CTCTL=$PWD/bin/ctctl go run ./bench [-quick] [-runs N] [-sizes 16,256,1024] [-containers 200] [-only SECTION]
//
// It runs in network and mount namespaces of its own, with a state root and a run root of
// its own below -dir, a directory on a disk, and removes all of it at the end, also
// after a failure. What a killed run left is removed by the next one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	dir   string
	runs  int
	sizes []int // MiB of touched memory
	// containers are how many there are when there are many.
	containers int
	only       string // section; "" is all
}

// section is a part of what is measured.
type section struct {
	name    string
	measure func(r *rig, ctx context.Context) error
}

var sections = []section{{"start", (*rig).starting}, {"checkpoints", (*rig).checkpoints}, {"addresses", (*rig).addressing}}

func sectionNames() string {
	var names []string
	for _, s := range sections {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// insideEnv marks the process that runs in the namespaces.
const insideEnv = "CTCTL_BENCH_INSIDE"

func init() {
	// The main thread stays the main goroutine's: it can't be ended, so none
	// whose namespaces are changed may be it.
	runtime.LockOSThread()
}

func main() { os.Exit(run()) }

func run() int {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	inside := os.Getenv(insideEnv) != ""
	if inside {
		err = measureAll(ctx, o)
	} else {
		err = again(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && !inside {
		return max(1, exit.ExitCode()) // it has told why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.dir, "dir", "/var/tmp/ctctl-bench", "where to work, on a disk; every directory on the way must have search permission for all")
	f.IntVar(&o.runs, "runs", 10, "how often each thing is measured")
	quick := f.Bool("quick", false, "three runs and few containers, for development")
	f.IntVar(&o.containers, "containers", 200, "how many containers there are when a change of addresses is measured among many")
	f.StringVar(&o.only, "only", "", "measure only this: "+sectionNames())
	sizes := f.String("sizes", "16,256,1024", "MiB of memory that the containers touch")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("no arguments wanted, got %q", f.Args())
	}
	if *quick {
		o.runs, o.containers = 3, min(o.containers, 20)
	}
	if o.runs < 1 {
		return o, fmt.Errorf("-runs %d: must be at least 1", o.runs)
	}
	if o.containers < 2 || o.containers > 10000 {
		return o, fmt.Errorf("-containers %d: must be between 2 and 10000", o.containers)
	}
	if o.only != "" && !slices.ContainsFunc(sections, func(s section) bool { return s.name == o.only }) {
		return o, fmt.Errorf("-only %s: there is only %s", o.only, sectionNames())
	}
	for s := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1<<16 {
			return o, fmt.Errorf("-sizes: %q is no number of MiB between 1 and 65536", s)
		}
		o.sizes = append(o.sizes, n)
	}
	return o, nil
}

// again runs this program in a network namespace of its own, and in a mount
// namespace: other programs' new mount namespaces would otherwise copy the mount
// of our pool, and keep it.
func again(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root: sudo make bench")
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	// It cleans up when it is asked to end, so it is asked, and given the time.
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 2 * time.Minute
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}
	return cmd.Run()
}

func measureAll(ctx context.Context, o options) (err error) {
	began := time.Now()
	r, err := newRig(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close(context.WithoutCancel(ctx))) }()
	if err := r.machine(ctx); err != nil {
		return err
	}
	for _, s := range sections {
		if o.only != "" && o.only != s.name {
			continue
		}
		if err := s.measure(r, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	fmt.Printf("\ntook %s\n", time.Since(began).Round(time.Second))
	return nil
}
