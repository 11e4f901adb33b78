package preflight

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Bounds of what is read of one process.
const (
	mostStatus  = 16 << 10
	mostList    = 1 << 20  // children, one thread's
	mostMaps    = 16 << 20 // about 160,000 mappings
	mostMounts  = 16 << 20
	mostNetlink = 4 << 20
	mostLink    = 4096 + 16 // PATH_MAX, and " (deleted)"
	mostWords   = 120       // of a name in a report
)

// reader reads files of /proc, one at a time.
type reader struct {
	buf  []byte
	link [mostLink]byte
}

// read returns a file's content up to limit bytes. It is valid until the next
// call.
func (r *reader) read(path string, limit int) ([]byte, error) {
	fd, err := open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if r.buf == nil {
		r.buf = make([]byte, 16<<10)
	}
	n := 0
	for n < limit {
		if n == len(r.buf) {
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		k, err := unix.Read(fd, r.buf[n:min(len(r.buf), limit)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return r.buf[:n], nil
}

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// readlink returns where a link of /proc leads.
func (r *reader) readlink(path string) (string, error) {
	n, err := unix.Readlink(path, r.link[:])
	return string(r.link[:max(n, 0)]), err
}

// names lists a directory; of /proc they are numbers.
func names(path string) ([]string, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var out []string
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n <= 0 {
			return out, err
		}
		_, _, out = unix.ParseDirent(buf[:n], -1, out)
	}
}

// numbers lists a directory's entries that are numbers.
func numbers(path string) ([]int, error) {
	list, err := names(path)
	if err != nil {
		return nil, err
	}
	out := make([]int, 0, len(list))
	for _, name := range list {
		if n, err := strconv.Atoi(name); err == nil && n >= 0 {
			out = append(out, n)
		}
	}
	return out, nil
}

// vanished is true for what /proc answers about what has gone, or is going.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, io.EOF)
}

// stat looks at what a link of /proc leads to, without asking the file system's
// server if it has one: that may be a program inside which never answers.
func stat(path string) (st unix.Statx_t, err error) {
	const mask = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	for {
		err = unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, mask, &st)
		if !errors.Is(err, unix.EINTR) {
			return st, err
		}
	}
}

// printable makes text of the container safe to print and not too long.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != utf8.RuneError && unicode.IsPrint(r) {
			b.WriteString(s[:n])
		} else {
			q := strconv.QuoteToASCII(s[:n])
			b.WriteString(q[1 : len(q)-1])
		}
		if s = s[n:]; b.Len() > mostWords && len(s) > 0 {
			return b.String() + "…"
		}
	}
	return b.String()
}
