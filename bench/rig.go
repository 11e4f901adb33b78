package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	templateName = "bench"
	address      = "10.155.0.2"
	port         = "7007"
	// commandTimeout bounds one command.
	commandTimeout = 3 * time.Minute
)

// rig is where all measurements take place: one host of ctctl.
type rig struct {
	options
	ctctl string // the executable
	lock  *statefile.Lock
	host  *host.Host // for what is not measured
}

func (r *rig) state() string   { return filepath.Join(r.dir, "state") }
func (r *rig) runRoot() string { return filepath.Join(r.dir, "run") }
func (r *rig) root() string    { return filepath.Join(r.dir, "root") } // what the template is made of
func (r *rig) scratch() string { return filepath.Join(r.dir, "scratch") }

// lockFile goes with its directory, which statefile.TryLock allows.
func (r *rig) lockFile() string { return filepath.Join(r.dir, "lock") }

// newRig provides a host with a template. The caller closes it.
func newRig(ctx context.Context, o options) (_ *rig, err error) {
	r := &rig{options: o, ctctl: os.Getenv("CTCTL")}
	if r.ctctl == "" {
		return nil, errors.New("CTCTL is not set: it is to name the ctctl that is measured")
	}
	if err := linkUp("lo"); err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o711); err != nil {
		return nil, err
	}
	if r.lock, err = statefile.TryLock(r.lockFile(), "bench"); err != nil {
		return nil, err
	}
	if err := r.clear(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("clear what an earlier run left: %w", err), r.lock.Unlock())
	}
	if err := r.provide(ctx); err != nil {
		return nil, errors.Join(err, r.close(context.WithoutCancel(ctx)))
	}
	return r, nil
}

func (r *rig) provide(ctx context.Context) error {
	for _, d := range []string{r.runRoot(), r.root()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			return err
		}
	}
	// 0700: memory images are in it.
	if err := os.MkdirAll(r.scratch(), 0o700); err != nil {
		return err
	}
	if err := r.makeRoot(ctx); err != nil {
		return fmt.Errorf("make a root file system: %w", err)
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	_, err := r.host.Templates.Import(ctx, templateName, r.root())
	return err
}

func (r *rig) open(ctx context.Context) (err error) {
	r.host, err = host.Open(ctx, host.Options{
		StateRoot: r.state(), RunRoot: r.runRoot(), Binary: r.ctctl,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	return err
}

// makeRoot makes a root file system of one static program.
func (r *rig) makeRoot(ctx context.Context) error {
	for _, d := range []string{"dev", "etc", "proc", "sys", "tmp", "bin"} {
		if err := os.MkdirAll(filepath.Join(r.root(), d), 0o755); err != nil {
			return err
		}
	}
	goCommand := os.Getenv("GO")
	if goCommand == "" {
		goCommand = "go"
	}
	cmd := exec.CommandContext(ctx, goCommand, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", filepath.Join(r.root(), "bin/payload"), "github.com/ctctl/ctctl/bench/payload")
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// close removes everything. It may be called after half a set-up.
func (r *rig) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err := r.clear(ctx)
	if err == nil {
		err = errors.Join(os.Remove(r.lockFile()), os.Remove(r.dir))
	}
	return errors.Join(err, r.lock.Unlock())
}

// clear destroys all containers and removes all but the directory itself.
func (r *rig) clear(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.state(), "host.json")); err == nil {
		if err := r.clearHost(ctx); err != nil {
			return err
		}
	}
	for _, d := range []string{r.runRoot(), r.state(), r.root(), r.scratch()} {
		if err := statefile.RemoveTree(d); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) clearHost(ctx context.Context) error {
	if r.host == nil {
		if err := r.open(ctx); err != nil {
			return err
		}
	}
	if err := r.destroy(ctx, func(string) bool { return true }); err != nil {
		return err
	}
	err := r.host.Detach(ctx)
	r.host = nil
	return err
}

// destroy destroys containers, as many at a time as there are processors.
func (r *rig) destroy(ctx context.Context, which func(name string) bool) error {
	names, err := r.host.Containers.Names()
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for _, name := range names {
		if which(name) {
			group.Go(func() error { return r.host.Destroy(ctx, name, true) })
		}
	}
	return group.Wait()
}

// run runs ctctl and returns how long it took and its trace.
func (r *rig) run(ctx context.Context, args ...string) (time.Duration, string, error) {
	return r.timed(ctx, r.ctctl, args...)
}

// usage is what a command took: time, and the processor's time, its own and that of
// those it waited for.
type usage struct{ wall, cpu time.Duration }

// timed runs a command and returns how long it took and what it said.
func (r *rig) timed(ctx context.Context, name string, args ...string) (time.Duration, string, error) {
	u, text, err := r.used(ctx, name, args...)
	return u.wall, text, err
}

// used runs a command, output to files: a container that it leaves running may
// have inherited them, and a pipe would be waited for.
func (r *rig) used(ctx context.Context, name string, args ...string) (u usage, text string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	messages, err := os.CreateTemp(r.scratch(), "messages-")
	if err != nil {
		return u, "", err
	}
	defer messages.Close()
	if err := os.Remove(messages.Name()); err != nil {
		return u, "", err
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "CTCTL_STATE_ROOT="+r.state(), "CTCTL_RUN_ROOT="+r.runRoot(), "CTCTL_TRACE=1")
	cmd.Stderr = messages
	began := time.Now()
	err = cmd.Run()
	u.wall = time.Since(began)
	if cmd.ProcessState != nil {
		u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	said, rerr := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", messages.Fd()))
	text = string(bytes.TrimSpace(said))
	if err != nil {
		return u, text, fmt.Errorf("%s %q: %w\n%s", filepath.Base(name), args, err, text)
	}
	return u, text, rerr
}

// calm writes out what earlier runs left in the page cache: a disk that is busy
// with it would slow down whoever comes next.
func (r *rig) calm() error {
	d, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// linkUp sets a link of this process's network namespace up (netdevice(7)).
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

func endpoint() string { return net.JoinHostPort(address, port) }
