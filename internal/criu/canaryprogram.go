package criu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	canaryArg0    = "ctctl-canary"
	canaryEnv     = "CTCTL_CRIU_CANARY"
	canaryProgram = "canary"
	canaryCount   = "count"
)

// The canary needs a program, and the only one that is certainly there is
// this one. So, as with libcontainer's init, a program that is started as
// the canary is the canary and never reaches main.
func init() {
	root := os.Getenv(canaryEnv)
	if root == "" || len(os.Args) < 2 || os.Args[0] != canaryArg0 {
		return
	}
	if err := canaryMain(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func canaryMain(root string) error {
	switch os.Args[1] {
	case "init":
		return canaryEnterRoot(root, os.Args[2:])
	case "serve":
		return canaryServe()
	default:
		return canaryClient(os.Args[2])
	}
}

// canaryEnterRoot makes root the root of this mount namespace, which holds
// nothing else then, and executes the program from there.
func canaryEnterRoot(root string, args []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	// CRIU finds a task's descriptors in the task's own /proc.
	if err := unix.Mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// pivot_root(".", ".") stacks the old root on the new one (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := canaryStdio(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	// The caller may have been started with descriptors that are not
	// close-on-exec; what they lead to does not exist in here.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close what was inherited: %w", err)
	}
	return unix.Exec("/"+canaryProgram, args, os.Environ())
}

// canaryStdio opens stdin, stdout and stderr anew: they came from a mount
// that does not exist in here, which CRIU refuses.
func canaryStdio() error {
	fd, err := unix.Open("/log", unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for i := range 3 {
		if err := unix.Dup3(fd, i, 0); err != nil {
			return err
		}
	}
	return nil
}

// canaryServe is the tree's init: it sends numbers to its child over TCP, has
// them back through a pipe, and writes them into a file.
func canaryServe() error {
	// Plain TCP: with MPTCP, the default of servers since Go 1.24, CRIU
	// would refuse the socket.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	child := exec.CommandContext(context.Background(), "/"+canaryProgram)
	child.WaitDelay = time.Second
	child.Args = []string{canaryArg0, "client", l.Addr().String()}
	child.Env = os.Environ()
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, w, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := child.Start(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	f, err := os.OpenFile("/"+canaryCount, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return canaryLoop(conn, bufio.NewReader(r), f)
}

func canaryLoop(conn net.Conn, pipe *bufio.Reader, f *os.File) error {
	for n := 1; ; n++ {
		if _, err := fmt.Fprintln(conn, n); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		line, err := pipe.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read from the pipe: %w", err)
		}
		if got := strings.TrimSpace(line); got != strconv.Itoa(n) {
			return fmt.Errorf("sent %d, but %q came back", n, got)
		}
		if _, err := f.WriteAt([]byte(fmt.Sprintln(n)), 0); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// canaryClient copies what comes over TCP to stdout, the pipe.
func canaryClient(addr string) error {
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		return err
	}
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if _, err := os.Stdout.WriteString(line); err != nil {
			return errors.Join(errors.New("write to the pipe"), err)
		}
	}
}
