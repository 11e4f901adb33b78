package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"
)

// Init is a container's first process as the child of this one, waiting to be
// let go by Exec.
type Init struct {
	PID       int
	Console   *os.File // master of the pty that is the container's /dev/console
	container *libcontainer.Container
	process   *libcontainer.Process
}

// Start makes the container's namespaces, cgroups and mounts and leaves init
// waiting. On an error nothing is left.
func Start(s Spec) (*Init, error) {
	cfg, err := s.config()
	if err != nil {
		return nil, err
	}
	c, err := s.create(cfg)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	p := &libcontainer.Process{Args: s.Args, Env: s.environment(), Cwd: s.cwd(), Init: true, LogLevel: "4", Capabilities: capabilitySet(s.capabilities())}
	master, err := withConsole(p, func() error { return c.Start(p) })
	if err != nil {
		return nil, errors.Join(commandError(s.Args, err), destroy(c))
	}
	in := &Init{Console: master, container: c, process: p}
	if in.PID, err = p.Pid(); err != nil {
		return nil, errors.Join(err, master.Close(), destroy(c))
	}
	if err := s.prepare(in.PID); err != nil {
		return nil, errors.Join(err, in.Abandon())
	}
	return in, nil
}

func destroy(c *libcontainer.Container) error {
	if err := c.Destroy(); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	return nil
}

// withConsole gives p a pty of the container's own devpts and returns its master.
func withConsole(p *libcontainer.Process, start func() error) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("console socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
	defer ours.Close()
	p.ConsoleSocket = theirs
	err = start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	master, err := utils.RecvFile(ours)
	if err != nil {
		return nil, fmt.Errorf("receive the console: %w", err)
	}
	return pollable(master)
}

// pollable reopens f's descriptor in non-blocking mode, so that closing it ends
// a read that is under way.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	name := f.Name()
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("console: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func capabilitySet(names []string) *configs.Capabilities {
	return &configs.Capabilities{Bounding: names, Effective: names, Permitted: names}
}

// Exec lets init go on to its command.
func (i *Init) Exec() error { return i.container.Exec() }

// Wait blocks until init has ended.
func (i *Init) Wait() (*os.ProcessState, error) {
	st, err := i.process.Wait()
	var exit interface{ ExitCode() int }
	if err != nil && !errors.As(err, &exit) {
		return nil, err
	}
	return st, nil
}

// Abandon ends an init that was not let go, and removes what Start made.
func (i *Init) Abandon() error {
	err := i.process.Signal(unix.SIGKILL)
	_, _ = i.process.Wait() // how it died is known
	return errors.Join(err, i.Console.Close(), destroy(i.container))
}

// Container is one that libcontainer knows to run.
type Container struct {
	c   *libcontainer.Container
	dir string // of its state
}

// Load finds a running container; ErrNotFound if libcontainer has no state of it.
func Load(stateDir, id string) (*Container, error) {
	c, err := libcontainer.Load(stateDir, id)
	if errors.Is(err, libcontainer.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("load the runtime state: %w", err)
	}
	return &Container{c: c, dir: filepath.Join(stateDir, id)}, nil
}

// PID is init's, in the caller's pid namespace.
func (c *Container) PID() (int, error) {
	st, err := c.c.State()
	if err != nil {
		return 0, err
	}
	return st.InitProcessPid, nil
}

// External names the mounts that come from outside.
func (c *Container) External() (External, error) {
	st, err := c.c.State()
	if err != nil {
		return External{}, err
	}
	cfg := c.c.Config()
	return external(&cfg, st.InitProcessPid), nil
}

// Config is libcontainer's own description, opaque to the caller, from which
// Restored makes the container again.
func (c *Container) Config() (json.RawMessage, error) { return json.Marshal(c.c.Config()) }

// Forget removes libcontainer's state directory of a container that has ended.
// Cgroups are the caller's to remove. Absent is not an error.
func Forget(stateDir, id string) error {
	return statefile.RemoveTree(filepath.Join(stateDir, id))
}
