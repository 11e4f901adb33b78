//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/integration/vm/wire"
	"golang.org/x/sys/unix"
)

// reconnect is how often the port is looked at while nobody is at its other end.
const reconnect = 100 * time.Millisecond

// server answers the rig's requests, each in a goroutine of its own.
type server struct {
	mu      sync.Mutex // guards the port against two writers, and running
	port    io.Writer
	running map[uint64]int // process groups by request
}

func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	s := &server{port: port, running: map[uint64]int{}}
	told := make(chan struct{})
	go func() {
		s.send(wire.Reply{}) // waits until there is somebody to tell
		close(told)
	}()
	answer := func(r wire.Request) {
		<-told // or the rig would believe that it has booted once more
		s.handle(r)
	}
	for {
		// Ends whenever the rig closes its end.
		if err := wire.Receive(port, func(r wire.Request) { go answer(r) }); !errors.Is(err, io.EOF) {
			return err
		}
		time.Sleep(reconnect)
	}
}

// openPort finds the rig's port among the serial ones by its name. Reading and
// writing block: with the runtime's poller a port without a rig at its other end
// would be ready all the time.
func openPort() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != wire.Port {
			continue
		}
		dev := "/dev/" + filepath.Base(filepath.Dir(path))
		fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dev, err)
		}
		return os.NewFile(uintptr(fd), dev), nil
	}
	return nil, fmt.Errorf("there is no serial port named %s", wire.Port)
}

// send ignores an error: whom should it be told?
func (s *server) send(r wire.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := wire.Send(s.port, r); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
}

func (s *server) handle(r wire.Request) {
	last := wire.Reply{ID: r.ID, Done: true}
	var err error
	switch r.Op {
	case wire.Hello:
		last.Data, err = os.ReadFile("/proc/sys/kernel/random/boot_id")
	case wire.Run:
		last.Code, err = s.run(r)
	case wire.Kill:
		err = s.kill(r.Target)
	case wire.Write:
		err = writeAt(r)
	case wire.Read:
		err = s.read(r)
	case wire.Clock:
		now := unix.NsecToTimeval(r.Time.UnixNano())
		err = unix.Settimeofday(&now)
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	if err != nil {
		last.Error = err.Error()
	}
	s.send(last)
}

// run starts a command in a session and process group of its own and waits for
// it. The rig limits its time.
func (s *server) run(r wire.Request) (code int, err error) {
	// No context: the rig asks for it to be killed.
	cmd := exec.CommandContext(context.Background(), r.Args[0], r.Args[1:]...)
	cmd.Env = append(environment(), r.Env...)
	cmd.Dir = r.Dir
	cmd.Stdin = strings.NewReader(string(r.Data))
	cmd.Stdout = output{s, r.ID, false}
	cmd.Stderr = output{s, r.ID, true}
	// What it leaves in the background may keep the output open.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.note(r.ID, cmd.Process.Pid)
	defer s.note(r.ID, 0)
	if err = cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = nil
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), err
	}
	return cmd.ProcessState.ExitCode(), err
}

// note remembers the process group of a request; 0 forgets it.
func (s *server) note(id uint64, group int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if group == 0 {
		delete(s.running, id)
	} else {
		s.running[id] = group
	}
}

// kill ends the command of a request. One that has ended is no error.
func (s *server) kill(id uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	group, ok := s.running[id]
	if !ok {
		return nil
	}
	return unix.Kill(-group, unix.SIGKILL)
}

// output sends what a command prints.
type output struct {
	s      *server
	id     uint64
	stderr bool
}

func (o output) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		piece := rest[:min(len(rest), wire.Chunk)]
		rest = rest[len(piece):]
		o.s.send(wire.Reply{ID: o.id, Data: piece, Stderr: o.stderr})
	}
	return len(p), nil
}

func (s *server) read(r wire.Request) error {
	f, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(struct{ io.Writer }{output{s, r.ID, false}}, f)
	return err
}

// writeAt makes the file when the first piece comes.
func writeAt(r wire.Request) error {
	flags := os.O_WRONLY
	if r.Offset == 0 {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(r.Path, flags, os.FileMode(r.Mode))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(r.Data, r.Offset)
	return errors.Join(err, f.Close())
}

// environment is that of a root shell.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8",
	}
}
