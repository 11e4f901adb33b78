package statefile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPoll = 5 * time.Millisecond
	lastPoll  = 50 * time.Millisecond
)

// Holder is who has a lock. PID is 0 when the holder could not be read, for
// instance because it has the lock for only some microseconds.
type Holder struct {
	PID   int       `json:"pid"`
	Op    string    `json:"op"`
	Since time.Time `json:"since"`
}

// BusyError says that a lock is taken. It is always returned as a pointer; it
// is ErrBusy, and also context.Canceled when a wait was given up because its
// context was cancelled, so that an interrupt can be told from a busy lock.
type BusyError struct {
	Path   string
	Holder Holder

	canceled bool
}

// Error names the process and the operation that hold the lock.
func (e *BusyError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("%s is locked by another process", e.Path)
	}
	return fmt.Sprintf("%s is locked by process %d (%q since %s)",
		e.Path, e.Holder.PID, e.Holder.Op, e.Holder.Since.Format(time.RFC3339))
}

// Is reports ErrBusy, and context.Canceled as described at BusyError.
func (e *BusyError) Is(target error) bool {
	return target == ErrBusy || (e.canceled && target == context.Canceled)
}

// Lock is a lock that this process has.
type Lock struct {
	f *os.File
}

// TryLock takes the lock at path or returns a BusyError at once. The file is
// made when absent and stays: unlinking a lock file lets two processes lock
// two different inodes. Where a whole directory is removed together with its
// lock, late comers notice that their inode is no longer at path and start
// over, or get fs.ErrNotExist. The lock ends with the process at the latest.
// It excludes also other goroutines of the same process.
func TryLock(path, op string) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil, refusal(f, path, err)
		}
		l := &Lock{f: f}
		current, err := sameFile(f, path)
		if err == nil && current {
			err = writeHolder(f, Holder{PID: os.Getpid(), Op: op, Since: time.Now().UTC()})
			if err == nil {
				return l, nil
			}
		}
		if err = errors.Join(err, l.Unlock()); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// WaitLock is TryLock again and again until ctx ends; then it returns the
// BusyError of the last try. flock(2) could block in the kernel instead, but
// nothing would end that wait when ctx does.
func WaitLock(ctx context.Context, path, op string) (*Lock, error) {
	pause := firstPoll
	for {
		l, err := TryLock(path, op)
		var busy *BusyError
		if !errors.As(err, &busy) {
			return l, err
		}
		select {
		case <-ctx.Done():
			busy.canceled = errors.Is(ctx.Err(), context.Canceled)
			return nil, err
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPoll)
	}
}

// refusal closes f, which could not be locked because of err.
func refusal(f *os.File, path string, err error) error {
	var busy *BusyError
	if errors.Is(err, unix.EWOULDBLOCK) {
		busy = &BusyError{Path: path, Holder: readHolder(f)}
	}
	switch closed := f.Close(); {
	case busy == nil:
		return fmt.Errorf("lock %s: %w", path, errors.Join(err, closed))
	case closed != nil:
		return errors.Join(busy, closed)
	default:
		return busy
	}
}

// Unlock gives the lock back. A second call does nothing.
func (l *Lock) Unlock() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	// LOCK_UN, not only close: a child that was forked but has not yet
	// executed shares the open file description and would keep the lock.
	return errors.Join(f.Truncate(0), flock(f, unix.LOCK_UN), f.Close())
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sameFile reports whether path still leads to f.
func sameFile(f *os.File, path string) (bool, error) {
	have, err := f.Stat()
	if err != nil {
		return false, err
	}
	want, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(have, want), err
}

func writeHolder(f *os.File, h Holder) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(b, '\n'), 0)
	return err
}

// readHolder is best effort: the holder may be just writing, or be gone.
func readHolder(f *os.File) Holder {
	var h Holder
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || json.Unmarshal(b, &h) != nil {
		return Holder{}
	}
	return h
}
