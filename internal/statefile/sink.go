package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Sink is a directory that becomes visible at once or not at all. A Sink is
// for one goroutine.
type Sink struct {
	final, temp string
	disk        disk
	state       sinkState
}

type sinkState int

const (
	sinkOpen sinkState = iota
	sinkCommitted
	sinkAborted
)

// NewSink makes the directory final+".tmp" with exactly the given mode,
// whatever the umask. One that an interrupted writer left is removed first, so
// the caller must hold the lock that covers final.
func NewSink(final string, mode fs.FileMode) (*Sink, error) {
	final = filepath.Clean(final)
	s := &Sink{final: final, temp: final + ".tmp", disk: realDisk}
	if err := RemoveTree(s.temp); err != nil {
		return nil, fmt.Errorf("remove stale %s: %w", s.temp, err)
	}
	if err := os.Mkdir(s.temp, mode.Perm()); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.temp, mode); err != nil {
		return nil, errors.Join(err, os.Remove(s.temp))
	}
	return s, nil
}

// Dir is where to write: final+".tmp" until Commit, final afterwards.
func (s *Sink) Dir() string {
	if s.state == sinkCommitted {
		return s.final
	}
	return s.temp
}

// Commit makes every file and directory durable and gives the directory its
// final name. It fails with fs.ErrExist when that is taken. After an error the
// final name is not ours and Abort is still to be called; a second Commit
// after success does nothing.
func (s *Sink) Commit() error {
	switch s.state {
	case sinkCommitted:
		return nil
	case sinkAborted:
		return fmt.Errorf("commit %s: %w", s.final, ErrAborted)
	case sinkOpen:
	}
	if err := s.commit(); err != nil {
		return fmt.Errorf("commit %s: %w", s.final, err)
	}
	s.state = sinkCommitted
	return nil
}

func (s *Sink) commit() error {
	if err := s.disk.syncTree(s.temp); err != nil {
		return err
	}
	if err := s.disk.place(s.temp, s.final); err != nil {
		return err
	}
	if err := s.disk.syncDir(filepath.Dir(s.final)); err != nil {
		// A failure that is reported must not stay visible as a success.
		return errors.Join(err, s.disk.place(s.final, s.temp))
	}
	return nil
}

// Abort removes the directory. After Commit or an earlier Abort it does
// nothing, so that it can be deferred.
func (s *Sink) Abort() error {
	if s.state != sinkOpen {
		return nil
	}
	if err := s.disk.remove(s.temp); err != nil {
		return fmt.Errorf("abort %s: %w", s.final, err)
	}
	s.state = sinkAborted
	return nil
}

// syncTree syncs regular files and directories, directories after what they
// hold. Links, sockets and devices have no content of their own: they are
// durable with the directory that names them.
func (d disk) syncTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = d.syncTree(path)
		case e.Type().IsRegular():
			err = d.syncPath(path, 0)
		}
		if err != nil {
			return err
		}
	}
	return d.syncDir(dir)
}
