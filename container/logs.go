package container

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// LogOptions says how much of the log is wanted.
type LogOptions struct {
	Follow bool // go on until ctx ends or the container is destroyed
}

// logPoll is how often a followed log is looked at.
const logPoll = 150 * time.Millisecond

// Logs writes what the console has shown, oldest first: up to two files of
// 4 MiB. A container that never ran has an empty log. That ctx ends a followed
// log is no error.
func (m *Manager) Logs(ctx context.Context, name string, w io.Writer, o LogOptions) (err error) {
	defer wrapOp("logs", name, &err)
	if _, err := m.get(name); err != nil {
		return err
	}
	f := logFile{path: m.LogFile(name), out: w}
	defer f.close()
	if err := f.older(); err != nil {
		return err
	}
	for {
		if err := f.more(); err != nil || !o.Follow {
			return err
		}
		if _, err := os.Lstat(m.dir(name)); errors.Is(err, fs.ErrNotExist) {
			return f.more()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(logPoll):
		}
	}
}

// logFile is a log that is read while it is written and turned over.
type logFile struct {
	path string
	out  io.Writer
	file *os.File
}

func openLogFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// older writes the file that was turned over, if there is one. The current one
// is opened first: should it be turned over now, nothing is lost, and what is
// then both is told apart.
func (l *logFile) older() error {
	if err := l.open(); err != nil {
		return err
	}
	old, err := openLogFile(l.path + ".1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	same, err := sameFile(old, l.file)
	if err != nil || same {
		return err
	}
	_, err = io.Copy(l.out, old)
	return err
}

func (l *logFile) open() error {
	f, err := openLogFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l.file = f
	return err
}

// more writes what has come since, across a turn-over.
func (l *logFile) more() error {
	for {
		if l.file == nil {
			if err := l.open(); err != nil || l.file == nil {
				return err
			}
		}
		if _, err := io.Copy(l.out, l.file); err != nil {
			return err
		}
		next, err := openLogFile(l.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // between two files, or the container is gone
		}
		if err != nil {
			return err
		}
		same, err := sameFile(next, l.file)
		if err != nil || same {
			return errors.Join(err, next.Close())
		}
		// The last lines before the turn-over may have come after the copy.
		_, err = io.Copy(l.out, l.file)
		l.close()
		l.file = next
		if err != nil {
			return err
		}
	}
}

func (l *logFile) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

func sameFile(a, b *os.File) (bool, error) {
	if a == nil || b == nil {
		return false, nil
	}
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y), err
}
