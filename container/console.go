package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	consoleHistory = 64 << 10 // bytes shown to who attaches
	consoleLogMax  = 4 << 20  // the log is turned over once at this size
	slowClient     = 200 * time.Millisecond
)

// console is the outer end of the container's /dev/console: everything written
// there goes to the log and to whoever is attached; what they type goes in.
type console struct {
	log      *slog.Logger
	path     string
	socket   string
	listener *net.UnixListener
	mu       sync.Mutex
	file     *os.File
	size     int64
	history  []byte
	master   *os.File
	clients  map[net.Conn]bool
	closed   bool
	done     sync.WaitGroup
}

func newConsole(runDir, logPath string, log *slog.Logger) (*console, error) {
	c := &console{log: log, path: logPath, socket: filepath.Join(runDir, "console.sock"), clients: map[net.Conn]bool{}}
	if err := c.openLog(); err != nil {
		return nil, err
	}
	if err := ignoreAbsent(os.Remove(c.socket)); err != nil {
		return nil, err
	}
	var err error
	if c.listener, err = listenUnix(c.socket); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	c.done.Add(1)
	go c.accept()
	return c, nil
}

// listenUnix and dialUnix go through a descriptor of the directory, because a
// socket's path is limited to 108 bytes.
func listenUnix(path string) (*net.UnixListener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the short name is gone by then
	return l, os.Chmod(path, 0o600)
}

func dialUnix(path string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: short, Net: "unix"})
}

func (c *console) openLog() error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c.file, c.size = f, fi.Size()
	return nil
}

// attach takes a pty's master and reads it until it is closed.
func (c *console) attach(master *os.File) {
	c.mu.Lock()
	old := c.master
	c.master = master
	c.mu.Unlock()
	if old != nil {
		old.Close()
	}
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		buf := make([]byte, 32<<10)
		for {
			n, err := master.Read(buf)
			if n > 0 {
				c.output(buf[:n])
			}
			// EIO: no process has the other end open, which init may do again.
			if errors.Is(err, unix.EIO) {
				if !c.reopened(master) {
					return
				}
				continue
			}
			if err != nil {
				return
			}
		}
	}()
}

// reopened waits until somebody opens the container's console again; it answers
// false when the master was closed.
func (c *console) reopened(master *os.File) bool {
	raw, err := master.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	for range 1 << 30 {
		err := raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(p, 0) // an error shows as no events
			// What was written by somebody who has left again is there to be read.
			closed = p[0].Revents&(unix.POLLHUP|unix.POLLIN) == unix.POLLHUP
		})
		if err != nil {
			return false
		}
		if !closed {
			return true
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 50e6}, nil) //nolint:errcheck // shorter is fine
	}
	return false
}

// duplicate returns another descriptor of the master.
func (c *console) duplicate() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.master == nil {
		return nil, errors.New("no console")
	}
	raw, err := c.master.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, derr := -1, error(nil)
	err = raw.Control(func(old uintptr) { fd, derr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, derr); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "console"), nil
}

func (c *console) output(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.history = append(c.history, b...)
	if over := len(c.history) - consoleHistory; over > 0 {
		c.history = append(c.history[:0], c.history[over:]...)
	}
	if c.size += int64(len(b)); c.size > consoleLogMax {
		c.turnOver()
	}
	if _, err := c.file.Write(b); err != nil {
		c.log.Error("console log", "err", err)
	}
	for conn := range c.clients {
		// Who does not read is dropped rather than let the container wait.
		err := conn.SetWriteDeadline(time.Now().Add(slowClient))
		if err == nil {
			_, err = conn.Write(b)
		}
		if err != nil {
			conn.Close()
			delete(c.clients, conn)
		}
	}
}

func (c *console) turnOver() {
	c.file.Close()
	if err := os.Rename(c.path, c.path+".1"); err != nil {
		c.log.Error("turn the console log over", "err", err)
	}
	if err := c.openLog(); err != nil {
		c.log.Error("open the console log", "err", err)
	}
}

func (c *console) accept() {
	defer c.done.Done()
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		err = conn.SetWriteDeadline(time.Now().Add(slowClient))
		if err == nil {
			_, err = conn.Write(c.history)
		}
		if c.closed {
			err = net.ErrClosed
		}
		if err == nil {
			c.clients[conn] = true
		}
		c.mu.Unlock()
		if err != nil {
			conn.Close()
			continue
		}
		c.done.Add(1)
		go c.input(conn)
	}
}

// Frames from who is attached: one byte kind, two bytes length (big endian), the rest.
const (
	frameInput = 'i'
	frameSize  = 's' // rows, columns as two uint16
)

func (c *console) input(conn net.Conn) {
	defer c.done.Done()
	defer func() {
		c.mu.Lock()
		delete(c.clients, conn)
		c.mu.Unlock()
		conn.Close()
	}()
	head := make([]byte, 3)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint16(head[1:]))
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		c.mu.Lock()
		master := c.master
		c.mu.Unlock()
		if err := deliver(master, head[0], body); err != nil {
			c.log.Info("console input", "err", err)
			return
		}
	}
}

func deliver(master *os.File, kind byte, body []byte) error {
	switch {
	case master == nil:
		return errors.New("no console")
	case kind == frameInput:
		_, err := master.Write(body)
		return err
	case kind == frameSize && len(body) == 4:
		return resize(master, binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:]))
	}
	return fmt.Errorf("unknown frame %q", kind)
}

// resize sets a pty's window size, through the file so that it stays pollable.
func resize(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(err, ierr)
}

func (c *console) close() {
	c.listener.Close()
	c.mu.Lock()
	c.closed = true
	if c.master != nil {
		c.master.Close()
	}
	for conn := range c.clients {
		conn.Close()
	}
	c.mu.Unlock()
	c.done.Wait()
	c.file.Close()
	os.Remove(c.socket) //nolint:errcheck // the run directory is removed as a whole
}
