package obstacle

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// taskKinds are states of processes, and namespaces of their own.
var taskKinds = map[string]kind{
	"traced":    {make: traced},
	"stopped":   {make: stopped},
	"vfork":     {make: func() error { return await("D", 0, "vfork") }},
	"headless":  {make: func() error { return await("Z", 0, "headless") }},
	"ns-pid":    {make: func() error { return nested(unix.CLONE_NEWPID) }},
	"ns-ipc":    {make: func() error { return nested(unix.CLONE_NEWIPC) }},
	"ns-uts":    {make: func() error { return nested(unix.CLONE_NEWUTS) }},
	"ns-user":   {make: func() error { return nested(unix.CLONE_NEWUSER) }},
	"ns-net":    {make: func() error { return nested(unix.CLONE_NEWNET) }},
	"ns-mnt":    {make: func() error { return nested(unix.CLONE_NEWNS) }},
	"ns-cgroup": {make: func() error { return nested(unix.CLONE_NEWCGROUP) }},
	"ns-time":   {make: nestedTime},
	"ns-file":   {make: namespaceFile},
}

func traced() error {
	pid, err := start(nil, nil, "sleep")
	if err != nil {
		return err
	}
	return onThread(func() error { return step("ptrace", unix.PtraceSeize(pid)) })
}

func stopped() error {
	pid, err := start(nil, nil, "sleep")
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return err
	}
	return awaitState(pid, "T")
}

// await starts a process that will be in a state.
func await(state string, flags uintptr, args ...string) error {
	pid, err := start(nil, &syscall.SysProcAttr{Cloneflags: flags}, args...)
	if err != nil {
		return err
	}
	return awaitState(pid, state)
}

// awaitState waits until a thread of the process is in a state.
func awaitState(pid int, state string) error {
	for end := time.Now().Add(readyIn / 2); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, task := range tasks {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
			if err != nil {
				continue // it has ended
			}
			_, rest, _ := bytes.Cut(b, []byte(") "))
			if bytes.HasPrefix(rest, []byte(state)) {
				return nil
			}
		}
	}
	return fmt.Errorf("process %d does not come into state %s", pid, state)
}

// vfork waits for a child that neither ends nor executes anything.
func vfork() error {
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 && e == 0 {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // the child
	}
	return errors.New("the child of vfork has ended")
}

// nested starts a process in a namespace of its own.
func nested(flag uintptr) error {
	attr := &syscall.SysProcAttr{Cloneflags: flag}
	if flag == unix.CLONE_NEWUSER {
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
		attr.UidMappings, attr.GidMappings = ids, ids
	}
	_, err := start(nil, attr, "sleep")
	return step("start", err)
}

func nestedTime() error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
			return step("unshare", err)
		}
		return spawn(nil, "sleep")
	})
}

// namespaceFile holds a namespace in which no process is.
func namespaceFile() error {
	return elsewhere(func(self string) error {
		_, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
}

// elsewhere calls f in a new network namespace, whose path it is given, and comes
// back from there.
func elsewhere(f func(self string) error) error {
	const self = "/proc/thread-self/ns/net"
	return onThread(func() error {
		own, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(own)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return step("unshare", err)
		}
		if err := f(self); err != nil {
			return err
		}
		return unix.Setns(own, unix.CLONE_NEWNET)
	})
}
