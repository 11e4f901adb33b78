package obstacle

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GhostBytes is the size of the file of the obstacle "deleted-large".
const GhostBytes = 2 << 20

// fileKinds are files and devices.
var fileKinds = map[string]kind{
	"nothing":         {make: nothing},
	"ordinary":        {make: ordinary},
	"crowd":           {make: crowd},
	"busy":            {make: busy},
	"deleted-small":   {make: func() error { return deleted("/tmp/deleted", 1000) }},
	"deleted-large":   {make: func() error { return deleted("/tmp/deleted", GhostBytes) }},
	"deleted-ugly":    {make: ugly},
	"other-name":      {make: func() error { return otherName("/tmp", false) }},
	"other-name-lost": {make: func() error { return otherName("/tmp/d", true) }},
	"device":          {make: func() error { return device("/dev/fuse", unix.S_IFCHR, 10, 229, unix.O_RDWR) }},
	"device-memory":   {make: func() error { return device("/dev/zero", unix.S_IFCHR, 1, 5, unix.O_RDWR) }},
	"device-block":    {make: func() error { return device("/dev/disk", unix.S_IFBLK, 259, 9999, unix.O_PATH) }},
	"tun":             {make: tun},
	"lease":           {make: lease},
	"ofd-lock":        {make: ofdLock},
	"mqueue":          {make: mqueue},
	"aio":             {make: aio},
}

func create(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	return fd, step("create "+path, err)
}

func deleted(path string, size int) error {
	fd, err := create(path)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, make([]byte, size)); err != nil {
		return err
	}
	return unix.Unlink(path)
}

// ugly has names that play with whoever prints them.
func ugly() error {
	name := []byte("a\x1b[2J\nb\\\xff\x00")
	if err := os.WriteFile("/proc/self/comm", name[:len(name)-1], 0o600); err != nil {
		return err
	}
	return deleted("/tmp/\x1b]0;title\a\n\xfe\u202e", GhostBytes)
}

// otherName opens a file by a name that it then has no more.
func otherName(dir string, remove bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := create(dir + "/a"); err != nil {
		return err
	}
	if err := unix.Link(dir+"/a", "/tmp/b"); err != nil {
		return err
	}
	if err := unix.Unlink(dir + "/a"); err != nil || !remove {
		return err
	}
	return unix.Rmdir(dir)
}

func device(path string, kind uint32, major, minor uint32, flags int) error {
	if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return step("mknod", err)
	}
	_, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	return step("open "+path, err)
}

func tun() error {
	if err := unix.Mknod("/dev/tun", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))); err != nil {
		return step("mknod", err)
	}
	fd, err := unix.Open("/dev/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return step("open", err)
	}
	ifr, err := unix.NewIfreq("tun0")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return step("ioctl", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
}

func lease() error {
	fd, err := create("/tmp/leased")
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	return step("lease", err)
}

func ofdLock() error {
	fd, err := create("/tmp/locked")
	if err != nil {
		return err
	}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

func mqueue() error {
	if err := os.Mkdir("/dev/mqueue", 0o700); err != nil {
		return err
	}
	if err := unix.Mount("mqueue", "/dev/mqueue", "mqueue", 0, ""); err != nil {
		return step("mount", err)
	}
	name := []byte("jobs\x00")
	return call4("mq_open", unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
}

func call4(what string, nr, a, b, c uintptr) error {
	_, _, e := unix.Syscall6(nr, a, b, c, 0, 0, 0)
	if e != 0 {
		return step(what, e)
	}
	return nil
}

func aio() error {
	var ctx uint64
	return call("io_setup", unix.SYS_IO_SETUP, 16, uintptr(unsafe.Pointer(&ctx)), 0)
}
