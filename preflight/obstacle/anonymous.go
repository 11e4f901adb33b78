package obstacle

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// anonymousKinds are descriptors without a file.
var anonymousKinds = map[string]kind{
	"io_uring":           {make: func() error { _, err := ioUring(); return err }},
	"io_uring-mapping":   {make: ioUringMapping},
	"perf_event":         {make: func() error { _, err := perfEvent(); return err }},
	"perf_event-mapping": {make: perfMapping},
	"bpf-map":            {make: bpfMap},
	"bpf-prog":           {make: bpfProg},
	"userfaultfd":        {make: func() error { return call("userfaultfd", unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0) }},
	"fanotify":           {make: fanotify},
	"inotify-removed":    {make: inotifyRemoved},
	"pidfd-thread":       {make: pidfdThread},
	"seccomp-listener":   {make: seccompListener},
	"landlock-ruleset":   {make: func() error { _, err := landlockRuleset(); return err }},
	"landlock":           {make: landlock},
	"memfd_secret":       {make: memfdSecret},
	"mount-context":      {make: mountContext},
	"epoll-escaped":      {make: epollEscaped},
	"pipe-packets":       {make: func() error { var p [2]int; return step("pipe", unix.Pipe2(p[:], unix.O_DIRECT|unix.O_CLOEXEC)) }},
}

// call makes a system call whose result stays open.
func call(what string, nr, a, b, c uintptr) error {
	_, _, e := unix.Syscall(nr, a, b, c)
	if e != 0 {
		return fmt.Errorf("%s: %w", what, e)
	}
	return nil
}

func ioUring() (int, error) {
	var params [120]byte // struct io_uring_params
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if e != 0 {
		return 0, fmt.Errorf("io_uring_setup: %w", e)
	}
	return int(fd), nil
}

func ioUringMapping() error {
	fd, err := ioUring()
	if err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	keep = append(keep, m)
	if err != nil {
		return step("mmap", err)
	}
	return unix.Close(fd)
}

func perfEvent() (int, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	return fd, step("perf_event_open", err)
}

func perfMapping() error {
	fd, err := perfEvent()
	if err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 2*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	keep = append(keep, m)
	if err != nil {
		return step("mmap", err)
	}
	return unix.Close(fd)
}

const (
	bpfMapCreate = 0
	bpfProgLoad  = 5
)

func bpfMap() error {
	attr := [32]uint32{2 /* array */, 4, 4, 1}
	return call("bpf", unix.SYS_BPF, bpfMapCreate, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
}

func bpfProg() error {
	code := [2]uint64{0xb7 /* r0 = 0 */, 0x95 /* exit */}
	license := []byte("GPL\x00")
	attr := struct {
		kind, count   uint32
		code, license uint64
		rest          [12]uint64
	}{kind: 1 /* socket filter */, count: 2}
	attr.code, attr.license = uint64(uintptr(unsafe.Pointer(&code))), uint64(uintptr(unsafe.Pointer(&license[0])))
	err := call("bpf", unix.SYS_BPF, bpfProgLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&code)
	runtime.KeepAlive(license)
	return err
}

func fanotify() error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return step("fanotify_init", err)
	}
	return step("fanotify_mark", unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, "/tmp"))
}

// inotifyRemoved watches a directory that is removed but held.
func inotifyRemoved() error {
	if err := unix.Mkdir("/tmp/gone", 0o700); err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.Open("/tmp/gone", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, "/tmp/gone", unix.IN_CREATE); err != nil {
		return err
	}
	return unix.Rmdir("/tmp/gone")
}

func pidfdThread() error {
	_, err := unix.PidfdOpen(unix.Gettid(), unix.O_EXCL) // PIDFD_THREAD
	return step("pidfd_open", err)
}

// onThread runs f in a thread that stays as f leaves it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
		select {}
	}()
	return <-done
}

func seccompListener() error {
	return onThread(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		filter := [1]unix.SockFilter{{Code: 0x06 /* return */, K: 0x7fff0000 /* allow */}}
		prog := unix.SockFprog{Len: 1, Filter: &filter[0]}
		const setFilter, newListener = 1, 8
		return call("seccomp", unix.SYS_SECCOMP, setFilter, newListener, uintptr(unsafe.Pointer(&prog)))
	})
}

func landlockRuleset() (int, error) {
	handled := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SOCK)
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), unsafe.Sizeof(handled), 0)
	if e != 0 {
		return 0, fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	return int(fd), nil
}

// landlock restricts a thread and keeps no descriptor.
func landlock() error {
	fd, err := landlockRuleset()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return onThread(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(fd), 0, 0)
	})
}

func memfdSecret() error {
	fd, _, e := unix.Syscall(unix.SYS_MEMFD_SECRET, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("memfd_secret: %w", e)
	}
	return step("ftruncate", unix.Ftruncate(int(fd), 4096))
}

func mountContext() error {
	_, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	return step("fsopen", err)
}

// epollEscaped leaves in an epoll the end of a pipe that only another process
// has open still.
func epollEscaped() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, p[0], &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p[0])}); err != nil {
		return err
	}
	if err := unix.Dup3(p[0], 0, 0); err != nil { // what the child gets
		return err
	}
	if err := spawn(nil, "sleep"); err != nil {
		return err
	}
	if err := unix.Close(p[0]); err != nil {
		return err
	}
	log, err := unix.Open("/log", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Dup3(log, 0, 0)
}
