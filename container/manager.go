package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
	"golang.org/x/sys/unix"
)

// Source is what a container is made from.
type Source struct {
	Volume string // frozen volume of the template
	Init   string // "" if it has none
}

// Manager keeps the containers below one state root. Its fields are set once,
// before use; its methods may be called at the same time, from several processes.
type Manager struct {
	StateRoot string // survives a reboot
	RunRoot   string // does not
	Volumes   storage.Volumes
	Templates func(ctx context.Context, name string) (Source, error)
	CRIU      criu.Engine
	Network   AutoNetwork
	// Binary is executed as the supervisor; "" is the running executable.
	Binary string
	Log    *slog.Logger
	// Trace is told how long each phase took; nil for none.
	Trace func(phase string, d time.Duration)
	// Settle finishes or undoes interrupted operations of layers above, by Intent.Op.
	Settle map[string]func(context.Context, *Locked) error
	// Needs says what the image of a suspended container needs; nil for nobody knows.
	Needs func(*Locked) (Needs, error)
}

// Locked is one container held by the operation that locked it.
type Locked struct {
	Config Config
	State  State
	m      *Manager
	lock   *statefile.Lock
}

// Info is what is known of a container at one moment.
type Info struct {
	Config Config `json:"config"` // as it is in effect
	State  State  `json:"state"`
	Status Status `json:"status"`
	Run    *Run   `json:"run,omitempty"`
	// Broken says that an operation was interrupted and nobody holds the container.
	Broken bool `json:"broken,omitempty"`
}

func (m *Manager) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}

func (m *Manager) trace(phase string, since time.Time) {
	if m.Trace != nil {
		m.Trace(phase, time.Since(since))
	}
}

func (m *Manager) dir(name string) string { return filepath.Join(m.StateRoot, "containers", name) }

func (m *Manager) configFile(name string) string { return filepath.Join(m.dir(name), "config.json") }
func (m *Manager) stateFile(name string) string  { return filepath.Join(m.dir(name), "state.json") }
func (m *Manager) lockFile(name string) string   { return filepath.Join(m.dir(name), "lock") }

// LogFile is where the console's output is kept.
func (m *Manager) LogFile(name string) string { return filepath.Join(m.dir(name), "console.log") }

func (m *Manager) runDir(uid string) string  { return filepath.Join(m.RunRoot, uid) }
func (m *Manager) runFile(uid string) string { return filepath.Join(m.runDir(uid), "run.json") }

// Lock holds a container for op and settles what an interrupted operation left.
// Errors: ErrNotFound, ErrName, statefile.ErrBusy naming the holder.
func (m *Manager) Lock(ctx context.Context, name, op string) (*Locked, error) {
	l, err := m.lockOnly(ctx, name, op)
	for end := time.Now().Add(supervisorGrace); err == nil && l.ending() && time.Now().Before(end); {
		// The supervisor goes first: it knows how init ended, and may restart it.
		if err := l.Unlock(); err != nil {
			return nil, err
		}
		time.Sleep(lookGrace)
		l, err = m.lockOnly(ctx, name, op)
	}
	if err != nil {
		return nil, err
	}
	if err := l.settle(ctx); err != nil {
		if !errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("settle an interrupted operation: %w", err)
		}
		return nil, errors.Join(err, l.Unlock())
	}
	return l, nil
}

// supervisorGrace is how long a command waits for a supervisor that is just
// recording how its container ended.
const supervisorGrace = 5 * time.Second

// lookGrace outlasts somebody who only looks whether the lock is held.
const lookGrace = 30 * time.Millisecond

func (m *Manager) lockOnly(ctx context.Context, name, op string) (*Locked, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(m.configFile(name)); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(m.dir(name)); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotFound
		}
	}
	lock, err := statefile.TryLock(m.lockFile(name), op)
	var busy *statefile.BusyError
	if errors.As(err, &busy) {
		grace := lookGrace
		if strings.HasPrefix(busy.Holder.Op, "supervisor") {
			grace = supervisorGrace
		}
		wait, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		lock, err = statefile.WaitLock(wait, m.lockFile(name), op)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	l := &Locked{m: m, lock: lock}
	if l.Config, l.State, err = m.read(name); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return l, nil
}

// Unlock lets the container go.
func (l *Locked) Unlock() error { return l.lock.Unlock() }

// SaveState makes the state durable.
func (l *Locked) SaveState() error { return stateSchema.Write(l.m.stateFile(l.Config.Name), &l.State) }

// SaveConfig validates the configuration and makes it durable.
func (l *Locked) SaveConfig() error {
	if err := l.Config.Validate(); err != nil {
		return err
	}
	return configSchema.Write(l.m.configFile(l.Config.Name), &l.Config)
}

// Status reads what the container is doing.
func (l *Locked) Status() (Status, *Run, error) { return l.m.status(l.Config, l.State) }

// Require answers a StateError unless the container's status is one of those given.
func (l *Locked) Require(op string, want ...Status) (Status, *Run, error) {
	s, run, err := l.Status()
	if err != nil {
		return s, run, err
	}
	if !slices.Contains(want, s) {
		return s, run, &StateError{Op: op, Status: s, Need: want}
	}
	return s, run, nil
}

func (m *Manager) read(name string) (Config, State, error) {
	var c Config
	var s State
	err := configSchema.Read(m.configFile(name), &c)
	if errors.Is(err, fs.ErrNotExist) {
		return c, s, ErrNotFound
	}
	if err != nil {
		return c, s, err
	}
	c.Name = name // the directory decides; a rename that was interrupted is thereby complete
	if err := c.Validate(); err != nil {
		return c, s, fmt.Errorf("%s: %w", m.configFile(name), err)
	}
	if err := stateSchema.Read(m.stateFile(name), &s); err != nil {
		return c, s, err
	}
	return c, s, nil
}

// Get reads one container without holding it.
func (m *Manager) Get(_ context.Context, name string) (info Info, err error) {
	defer wrapOp("inspect", name, &err)
	return m.get(name)
}

func (m *Manager) get(name string) (info Info, err error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	c, s, err := m.read(name)
	if err != nil {
		return Info{}, err
	}
	info = Info{Config: c, State: s}
	if info.Status, info.Run, err = m.status(c, s); err != nil {
		return info, err
	}
	if info.Status != Stopped {
		info.Config = m.effective(c, s)
	}
	info.Broken = s.Intent != nil && !locked(m.lockFile(name))
	return info, nil
}

// locked says whether somebody holds a lock file right now. It takes the shared
// lock for an instant, which keeps nobody out who waits for a moment, and makes no
// file.
func locked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Names lists the containers of the host, sorted. Half-made ones are not in it.
func (m *Manager) Names() ([]string, error) {
	entries, err := readDir(filepath.Join(m.StateRoot, "containers"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		_, err := os.Lstat(m.configFile(e.Name()))
		switch {
		case err == nil:
			names = append(names, e.Name())
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return names, nil
}

// List reads every container; one that can't be read is an error of its own, the
// others are returned all the same.
func (m *Manager) List(ctx context.Context) ([]Info, error) {
	names, err := m.Names()
	if err != nil {
		return nil, err
	}
	var infos []Info
	var errs []error
	for _, n := range names {
		info, err := m.Get(ctx, n)
		if errors.Is(err, ErrNotFound) {
			continue // destroyed meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		infos = append(infos, info)
	}
	return infos, errors.Join(errs...)
}
