package obstacle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outsideKinds are made, or given, from outside of the tree.
var outsideKinds = map[string]kind{
	"host-file":         {make: nothing, give: hostFile},
	"foreign-tty":       {make: nothing, give: terminal},
	"exec-session":      {make: nothing, join: joining{part: "sleep", setsid: true}.do},
	"exec-connected":    {make: listen, join: joining{part: "connect", setsid: true}.do},
	"exec-lock":         {make: func() error { _, err := create("/tmp/locked"); return err }, join: joining{part: "lock", setsid: true}.do},
	"exec-pipe":         {make: fifo, join: joining{part: "pipe", setsid: true}.do},
	"exec-daemon":       {make: nothing, join: joining{part: "daemon", setsid: true}.do},
	"exec-sessionless":  {make: nothing, join: joining{part: "daemon"}.do},
	"exec-other-cgroup": {make: nothing, join: joining{part: "daemon", setsid: true, stay: true}.do},
}

func nothing() error { return nil }

// hostFile is a file that is not in the tree's mount namespace.
func hostFile(t *Tree) (*os.File, error) {
	return os.OpenFile(filepath.Join(filepath.Dir(t.Root), filepath.Base(t.Root)+".output"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
}

// terminal is a pseudo terminal of the host, whose other end the tree keeps.
func terminal(t *Tree) (*os.File, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t.held = append(t.held, master)
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	return os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
}

// joining runs a part of the program in all namespaces of a tree, as exec does.
type joining struct {
	part   string
	setsid bool
	stay   bool // in the caller's cgroup
}

func (j joining) do(t *Tree) error {
	return Apart(func() error { return j.inThread(t) })
}

// Apart calls f on a thread that is never used again, so that f may leave it in
// other namespaces or cgroups. It is not the process's first one, which would
// stay behind and be taken for the process by who looks at /proc/self.
func Apart(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- Apart(f) // elsewhere: this thread is taken
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

func (j joining) inThread(t *Tree) error {
	if err := t.enter(); err != nil {
		return err
	}
	log, err := os.OpenFile("/log", os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), program) // it ends with the tree
	cmd.WaitDelay = time.Second
	cmd.Args = []string{arg0, j.part}
	cmd.Env = []string{"GOMAXPROCS=2"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = log, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: j.setsid}
	if t.cgroup != nil && !j.stay {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(t.cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t.joined = append(t.joined, cmd)
	switch j.part {
	case "daemon":
		_ = cmd.Wait() // how it ends does not matter, its child does
	case "connect":
		return appears("/accepted")
	case "lock", "pipe":
		return appears("/joined")
	}
	return nil
}

// enter brings the calling thread into the namespaces.
func (t *Tree) enter() error {
	var namespaces []int
	kinds := []string{"ipc", "uts", "net", "pid", "mnt"}
	for _, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", t.Init, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		namespaces = append(namespaces, fd)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	for i, fd := range namespaces {
		if err := unix.Setns(fd, 0); err != nil {
			return step("join "+kinds[i], err)
		}
	}
	return nil
}

// appears waits for a file; this thread is inside.
func appears(path string) error {
	for end := time.Now().Add(readyIn); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s does not appear", path)
}

// lock holds locks on a file that the tree has open.
func lock() error {
	f, err := os.OpenFile("/tmp/locked", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	keep = append(keep, f)
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	return joined()
}

const fifoPath = "/tmp/fifo"

// fifo waits for the other end without holding up.
func fifo() error {
	if err := unix.Mkfifo(fifoPath, 0o600); err != nil {
		return err
	}
	_, err := unix.Open(fifoPath, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return err
}

func writeFifo() error {
	if _, err := unix.Open(fifoPath, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	return joined()
}

// joined tells that it is done.
func joined() error {
	if err := os.WriteFile("/joined", nil, 0o600); err != nil {
		return err
	}
	rest()
	return nil
}

const meetingPoint = "/tmp/listening"

// listen waits for the other end of a connection, without holding up.
func listen() error {
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: meetingPoint}); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	go func() {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		keep = append(keep, fd, err)
		_ = os.WriteFile("/accepted", nil, 0o600) // who waits for it tells
	}()
	return nil
}

// connect holds a connection with the tree.
func connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: meetingPoint}); err != nil {
		return err
	}
	rest()
	return nil
}
