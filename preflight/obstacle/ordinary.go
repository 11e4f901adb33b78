package obstacle

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ordinary holds much of what programs hold, and all of it can be checkpointed.
func ordinary() error {
	for _, do := range []func() error{
		ordinaryEvents, ordinarySockets, ordinaryMemory, ordinaryFiles, ordinaryTerminal, ordinaryTasks,
		func() error { return deleted("/tmp/deleted", 1000) }, ofdLock, aio,
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

func ordinaryEvents() error {
	if _, err := unix.Eventfd(1, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Value: unix.Timespec{Sec: 1000}}, nil); err != nil {
		return err
	}
	if _, err := unix.Signalfd(-1, &unix.Sigset_t{}, unix.SFD_CLOEXEC); err != nil {
		return err
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, timer, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return err
	}
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(in, "/tmp", unix.IN_CREATE)
	return err
}

func ordinarySockets() error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	addr := &unix.SockaddrInet4{Port: 8081, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(l, addr); err != nil {
		return err
	}
	if err := unix.Listen(l, 5); err != nil {
		return err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, addr); err != nil {
		return err
	}
	if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return err
	}
	for _, s := range [][3]int{
		{unix.AF_INET6, unix.SOCK_STREAM, 0},
		{unix.AF_INET, unix.SOCK_DGRAM, 0},
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		{unix.AF_UNIX, unix.SOCK_STREAM, 0},
		{unix.AF_UNIX, unix.SOCK_DGRAM, 0},
		{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0},
	} {
		if err := socket(s[0], s[1], s[2]); err != nil && s[2] != unix.IPPROTO_UDPLITE { // gone since Linux 7
			return err
		}
	}
	_, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return err
}

func ordinaryMemory() error {
	fd, err := unix.MemfdCreate("ordinary", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 8192); err != nil {
		return err
	}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
	if err != nil {
		return err
	}
	shm, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return err
	}
	shared, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	keep = append(keep, shm, shared)
	return err
}

func ordinaryFiles() error {
	fd, err := create("/tmp/plain")
	if err != nil {
		return err
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		return err
	}
	if err := unix.Mkfifo("/tmp/fifo", 0o600); err != nil {
		return err
	}
	if _, err := unix.Open("/tmp/fifo", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	if _, err := unix.PidfdOpen(os.Getpid(), 0); err != nil {
		return err
	}
	_, err = unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return err
}

// ordinaryTerminal opens a pseudo terminal of the tree's own.
func ordinaryTerminal() error {
	if err := os.Mkdir("/dev/pts", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		return step("mount", err)
	}
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	_, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	return err
}

// ordinaryTasks leaves a child that runs and one that has ended.
func ordinaryTasks() error {
	if err := spawn(nil, "sleep"); err != nil {
		return err
	}
	return spawn(nil, "daemon")
}

// crowdSize is how many processes make a crowd.
const crowdSize = 100

func crowd() error {
	for range crowdSize {
		if err := spawn(nil, "sleep"); err != nil {
			return err
		}
	}
	return nil
}

// busy starts processes all the time, which end soon.
func busy() error {
	go func() {
		for spawn(nil, "end") == nil {
			time.Sleep(time.Millisecond)
			for pid := 1; pid > 0; { // all that have ended
				pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
			}
		}
	}()
	return nil
}
