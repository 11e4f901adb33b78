package obstacle

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	if len(os.Args) > 1 && os.Args[0] == arg0 && os.Args[1] == "headless" {
		runtime.LockOSThread() // main runs in the first thread
	}
}

// Main does the part of a tree's process when this is one; ran is true then, and
// the program should end.
func Main() (ran bool, err error) {
	if len(os.Args) < 2 || os.Args[0] != arg0 {
		return false, nil
	}
	switch os.Args[1] {
	case "enter":
		err = enter(os.Getenv(rootEnv), os.Args[3] == "true")
	case "init":
		err = serve(os.Args[2])
	case "hold":
		err = hold(os.Args[2])
	case "daemon":
		// Who joins the tree may have been started with more than it should.
		err = errors.Join(unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC), spawn(nil, "sleep"))
	case "end":
	case "connect":
		err = connect()
	case "lock":
		err = lock()
	case "pipe":
		err = writeFifo()
	case "vfork":
		err = vfork()
	case "headless":
		go rest()
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	default:
		rest()
	}
	return true, err
}

// rest does nothing for ever.
func rest() {
	for {
		time.Sleep(time.Hour)
	}
}

// enter makes root the root of this mount namespace and executes the program
// from there, so that nothing open or mapped is of the host.
func enter(root string, dynamic bool) error {
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error { return bindLibraries(root, dynamic) },
		func() error { return unix.Chdir(root) },
		func() error {
			return unix.Mount("proc", "proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		},
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Chdir("/") },
		standardFiles,
		loopbackUp,
	}
	for i, do := range steps {
		if err := do(); err != nil {
			return fmt.Errorf("enter the root, step %d: %w", i, err)
		}
	}
	// The given file goes on, all else that was inherited does not.
	if err := unix.CloseRange(4, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	return unix.Exec(program, []string{arg0, "init", os.Args[2]}, os.Environ())
}

func bindLibraries(root string, dynamic bool) error {
	for _, dir := range libraries {
		if !dynamic {
			return nil
		}
		if _, err := os.Stat("/" + dir); err != nil {
			continue
		}
		if err := unix.Mount("/"+dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}

// standardFiles opens them anew: they came from a mount that is not here.
func standardFiles() error {
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

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// serve is the tree's init.
func serve(name string) error {
	var given *os.File
	if kinds[name].give != nil {
		given = os.NewFile(3, "given")
	}
	if err := spawn(given, "hold", name); err != nil {
		return err
	}
	if given != nil {
		given.Close()
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			time.Sleep(100 * time.Millisecond) // none left
		}
	}
}

// spawn starts this program in another part and keeps nothing of it.
func spawn(file *os.File, args ...string) error {
	_, err := start(file, nil, args...)
	return err
}

func start(file *os.File, attr *syscall.SysProcAttr, args ...string) (pid int, err error) {
	cmd := exec.CommandContext(context.Background(), program) // it ends with the tree
	cmd.WaitDelay = time.Second
	cmd.Args = append([]string{arg0}, args...)
	cmd.Env = os.Environ()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if file != nil {
		cmd.Stdin, cmd.Stdout = file, file
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	return pid, cmd.Process.Release() // it may have a descriptor of the process
}

// hold makes the obstacle and tells so.
func hold(name string) error {
	text := "ok"
	if err := kinds[name].make(); err != nil {
		text = err.Error()
	}
	if err := os.WriteFile("/"+answer+".new", []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.Rename("/"+answer+".new", "/"+answer); err != nil {
		return err
	}
	rest()
	runtime.KeepAlive(keep)
	return nil
}
