package preflight

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// unnamed are the names of memory that has no path and that CRIU saves.
var unnamed = []string{"/memfd:", "/SYSV", "/dev/zero (deleted)", "/[aio] (deleted)", "/anon_hugepage (deleted)"}

func isUnnamed(link string) bool {
	for _, name := range unnamed {
		if strings.HasPrefix(link, name) {
			return true
		}
	}
	return false
}

// file looks at what a link with a path leads to: path is the link in /proc.
func (x *examination) file(r *reader, p *process, fd int, path, link string) {
	st, err := stat(path)
	if err != nil {
		return // gone, or a file system that does not answer, which checkMounts names
	}
	m := x.mountOf(r, p, st.Mnt_id)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		x.device(r, p, fd, st, m, link)
	case unix.S_IFBLK:
		x.add(r, p, fd, "device", "device", "block device "+printable(link), nil)
	case unix.S_IFSOCK:
		x.add(r, p, fd, "socket-path", "socket-path", "socket's file opened as a path: "+printable(link), nil)
	default:
		x.plain(r, p, fd, st, m, path, link)
	}
}

// plain looks at a file, directory, link or fifo; fd is -1 for a mapping.
func (x *examination) plain(r *reader, p *process, fd int, st unix.Statx_t, m *mount, path, link string) {
	large, outside := "deleted-large", "outside-file"
	if fd < 0 {
		large, outside = "mapping-large", "mapping-host"
	}
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	switch {
	case m == nil && strings.HasPrefix(link, "/secretmem"):
		x.add(r, p, fd, "memfd_secret", "memfd_secret", "secret memory (memfd_secret)", nil)
	case m == nil && regular && isUnnamed(link):
	case m == nil && x.isQueue(st):
		x.add(r, p, fd, "mqueue-open", "mqueue-open", "POSIX message queue "+printable(link), nil)
	case m == nil:
		x.add(r, p, fd, outside, outside, "file outside the container or on a mount that is gone: "+printable(link), nil)
	case regular && st.Nlink == 0 && int64(st.Blocks)*512 > x.t.GhostLimitBytes:
		what := fmt.Sprintf("deleted file of %d MiB: %s", int64(st.Blocks)*512>>20, printable(strings.TrimSuffix(link, " (deleted)")))
		x.add(r, p, fd, large, large, what, nil)
	case st.Nlink > 0 && x.hidden(p, st, m, link):
		// While a distribution boots, one that mounts over a directory says so to who
		// has files open there.
		f := x.finding(r, p, fd, "covered-file", "covered-file", "file that another mount hides: "+printable(link), nil)
		x.doubtful(f, func(*reader) bool { return sameFile(path, st) })
	}
}

// hidden says that a file's path leads elsewhere because of a mount.
func (x *examination) hidden(p *process, st unix.Statx_t, m *mount, link string) bool {
	if m.fstype == "proc" || m.fstype == "devpts" {
		return false // CRIU looks for them otherwise
	}
	x.mu.Lock()
	hidden := m.covered()
	top := x.mounts.visible(m.space, link)
	x.mu.Unlock()
	if hidden || top == nil || top == m || !below(link, m.point) {
		return hidden
	}
	// The same file may be there, bound from its own directory.
	fd, err := x.openMount(&mount{point: link, by: m.by}, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	return !sameFile(fmt.Sprintf("/proc/self/fd/%d", fd), st)
}

// sameFile says that a path leads to a file that was looked at before.
func sameFile(path string, st unix.Statx_t) bool {
	there, err := stat(path)
	return err == nil && there.Ino == st.Ino && there.Dev_major == st.Dev_major && there.Dev_minor == st.Dev_minor
}

// isQueue says that a file is on a file system of message queues.
func (x *examination) isQueue(st unix.Statx_t) bool {
	dev := fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor)
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.any(func(m *mount) bool { return m.fstype == "mqueue" && m.dev == dev })
}

// Device numbers, see devices.txt of the kernel's documentation.
const (
	majorMemory  = 1
	majorTTY     = 4
	majorTTYAux  = 5
	majorMisc    = 10
	majorPTY     = 136
	minorTun     = 200
	minorAutofs  = 235
	lastConsole  = 63
	firstMaster  = 128
	lastMaster   = 135
	majorUSB     = 188
	majorLowRate = 204
)

// device looks at an open character device: CRIU knows the memory devices and
// terminals (files.c, tty.c).
func (x *examination) device(r *reader, p *process, fd int, st unix.Statx_t, m *mount, link string) {
	major, minor := st.Rdev_major, st.Rdev_minor
	switch {
	case isTerminal(major, minor):
		if m == nil {
			x.add(r, p, fd, "foreign-tty", "foreign-tty", "terminal outside the container: "+printable(link), nil)
		}
	case major == majorMemory || major == majorMisc && minor == minorAutofs:
		if m == nil {
			x.add(r, p, fd, "outside-file", "outside-file", "device node outside the container: "+printable(link), nil)
		}
	case major == majorMisc && minor == minorTun:
		fdInfo(r, p, fd, "iff", func(name string) {
			if name != "" {
				x.add(r, p, fd, "tun", "tun", "network device "+printable(name), nil)
			}
		})
	default:
		x.add(r, p, fd, "device", "device", fmt.Sprintf("device %s (%d:%d)", printable(link), major, minor), nil)
	}
}

func isTerminal(major, minor uint32) bool {
	switch {
	case major == majorTTYAux:
		return minor <= 2
	case major == majorTTY:
		return minor >= 1 && minor <= lastConsole
	}
	return major == majorPTY || major >= firstMaster && major <= lastMaster || major == majorUSB || major == majorLowRate
}

// lookAtDirectories looks at where a process is.
func (x *examination) lookAtDirectories(p *process) {
	r := new(reader)
	for name, what := range map[string]string{"cwd": "working directory", "root": "root directory"} {
		path := p.path + "/" + name
		st, err := stat(path)
		if err != nil {
			continue
		}
		if x.mountOf(r, p, st.Mnt_id) == nil {
			link, _ := r.readlink(path) // for the message only
			x.add(r, p, -1, "outside-file", "outside-file", what+" outside the container or on a mount that is gone: "+printable(link), nil)
		}
	}
}
