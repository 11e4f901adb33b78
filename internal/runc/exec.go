package runc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"
)

// Command is run inside a running container.
type Command struct {
	Args   []string
	User   string // "name", "uid", "name:group", "uid:gid"; "" is root
	Cwd    string
	Env    []string
	System bool // as in Spec
	TTY    bool
	Stdin  io.Reader // nil: nothing to read
	Stdout io.Writer
	Stderr io.Writer
}

// Process is a command under way.
type Process struct {
	PID     int
	Console *os.File // with TTY
	p       *libcontainer.Process
}

// Exec starts a command in every namespace and cgroup of the container, in a
// session of its own (CRIU refuses tasks whose session leader is outside).
func (c *Container) Exec(cmd Command) (*Process, error) {
	who, err := c.lookup(cmd.User)
	if err != nil {
		return nil, err
	}
	s := Spec{System: cmd.System, Cwd: cmd.Cwd}
	if len(c.c.Config().UIDMappings) > 0 {
		s.IDs = &IDRange{}
	}
	caps := capabilitySet(s.capabilities())
	if who.Uid != 0 {
		caps.Effective, caps.Permitted = nil, nil
	}
	nnp := !cmd.System
	p := &libcontainer.Process{
		Args: cmd.Args, Env: append([]string{defaultPath, "HOME=" + who.Home, "TERM=linux", "container=ctctl"}, cmd.Env...),
		Cwd: s.cwd(), UID: who.Uid, GID: who.Gid, AdditionalGroups: who.Sgids, LogLevel: "4", Capabilities: caps, NoNewPrivileges: &nnp,
	}
	out := &Process{p: p}
	if err := c.run(out, cmd); err != nil {
		return nil, commandError(cmd.Args, err)
	}
	if out.PID, err = p.Pid(); err != nil {
		return nil, err
	}
	return out, nil
}

func (c *Container) run(out *Process, cmd Command) error {
	at, done, err := c.beside()
	if err != nil {
		return err
	}
	if cmd.TTY {
		out.Console, err = withConsole(out.p, func() error { return at.Run(out.p) })
	} else {
		out.p.Stdin, out.p.Stdout, out.p.Stderr = cmd.Stdin, cmd.Stdout, cmd.Stderr
		err = at.Run(out.p)
	}
	_ = done() // the command runs; what might be left goes with the container's state
	return err
}

// Signal sends a signal to the command.
func (p *Process) Signal(sig os.Signal) error { return p.p.Signal(sig) }

// Wait returns the exit code as a shell gives it (128+n for signal n).
func (p *Process) Wait() (int, error) {
	st, err := p.p.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return -1, err
	}
	return ExitCode(st), nil
}

// ExitCode is how a shell gives a process's end: its code, or 128+signal.
func ExitCode(st *os.ProcessState) int {
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return st.ExitCode()
}

// lookup resolves a user in the container's own passwd and group files. The
// files are the container's, so they are opened below its root and nowhere else.
func (c *Container) lookup(name string) (*user.ExecUser, error) {
	pid, err := c.PID()
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	defer unix.Close(root)
	if name == "" {
		name = "0"
	}
	passwd, closePasswd := openIn(root, "etc/passwd")
	defer closePasswd()
	group, closeGroup := openIn(root, "etc/group")
	defer closeGroup()
	who, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrUser, name, err)
	}
	if who.Uid == 0 && who.Home == "/" {
		who.Home = "/root"
	}
	return who, nil
}

// openIn opens a regular file below root; a missing file reads as empty, so that
// numeric users work in a root without /etc/passwd.
func openIn(root int, path string) (io.Reader, func()) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, path, &how)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), path)
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, func() {}
	}
	return io.LimitReader(f, 16<<20), func() { f.Close() }
}

// commandError tells a command that could not be run from a runtime failure.
// libcontainer reports init's error as text through a pipe, so text is all there is.
func commandError(args []string, err error) error {
	text := err.Error()
	name := ""
	if len(args) > 0 {
		name = args[0]
	}
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "exec: ") && strings.Contains(text, "no such file or directory"):
		return &CommandError{Command: name, Code: 127, Err: errors.New("command not found in the container")}
	case strings.Contains(text, "exec: ") && strings.Contains(text, "permission denied"):
		return &CommandError{Command: name, Code: 126, Err: errors.New("command is not executable")}
	}
	return err
}
