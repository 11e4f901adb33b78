package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
)

// Repair settles what interrupted operations left of one container and says what
// it did; nothing when all was well.
func (m *Manager) Repair(ctx context.Context, name string) (done []string, err error) {
	defer wrapOp("repair", name, &err)
	before, err := m.Get(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	_, rerr := os.Lstat(m.runDir(before.Config.UID))
	l, err := m.Lock(ctx, name, "repair")
	if errors.Is(err, ErrNotFound) && before.State.Intent != nil {
		return []string{name + ": removed, its " + before.State.Intent.Op + " was interrupted"}, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	status, _, err := l.Status()
	if err != nil {
		return nil, err
	}
	half, err := l.sweepHalfWritten(status)
	if err != nil {
		return nil, err
	}
	for _, f := range half {
		done = append(done, fmt.Sprintf("%s: removed the half-written %s", name, f))
	}
	switch {
	case before.State.Intent != nil:
		done = append(done, fmt.Sprintf("%s: settled an interrupted %s, now %s", name, before.State.Intent.Op, status))
	case rerr == nil && before.Status != Running && before.Status != Paused:
		done = append(done, fmt.Sprintf("%s: cleared what an ended run left", name))
	}
	if before.State.Intent == nil && len(l.State.Overlay) < len(before.State.Overlay) {
		done = append(done, name+": took back what was changed for a while")
	}
	again, err := l.restore(ctx)
	return append(done, again...), err
}

// restore makes the kernel hold the configuration in effect, and says what it did
// not. Limits that can't be, because more is in use, keep nothing from the network.
func (l *Locked) restore(ctx context.Context) (done []string, err error) {
	name := l.Config.Name
	drift, err := l.restoreLimits(ctx)
	if err != nil {
		drift, err = nil, fmt.Errorf("put the limits back: %w", err)
	}
	for _, d := range drift {
		done = append(done, fmt.Sprintf("%s: put a limit back: %s", name, d))
	}
	wrong, nerr := l.restoreNetwork(ctx)
	if nerr != nil {
		wrong, nerr = nil, fmt.Errorf("put the network back: %w", nerr)
	}
	for _, w := range wrong {
		done = append(done, fmt.Sprintf("%s: put the network back: %s", name, w))
	}
	return done, errors.Join(err, nerr)
}

// sweepHalfWritten leaves the books of a container that runs to its supervisor.
func (l *Locked) sweepHalfWritten(status Status) ([]string, error) {
	half, err := statefile.SweepTemp(l.m.dir(l.Config.Name))
	if err != nil || status == Running || status == Paused || l.backingOff() {
		return half, err
	}
	more, err := statefile.SweepTemp(filepath.Dir(l.m.usageFile(l.Config.Name)))
	return append(half, more...), err
}

var uidPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Sweep removes what belongs to containers of this host that are no more: half
// made directories, and run directories with the cgroup and link of their uid.
func (m *Manager) Sweep(ctx context.Context) (done []string, err error) {
	defer wrapOp("repair", "", &err)
	lock, err := statefile.WaitLock(ctx, filepath.Join(m.StateRoot, "host.lock"), "repair")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	halves, err := m.sweepHalfMade()
	if err != nil {
		return halves, err
	}
	// Files of the state root are written under this lock, but for the pool's own,
	// which is there.
	files, err := statefile.SweepTemp(m.StateRoot)
	for _, f := range files {
		halves = append(halves, "removed the half-written "+f)
	}
	if err != nil {
		return halves, err
	}
	known, err := m.UIDs()
	if err != nil {
		return halves, err
	}
	runs, err := readDir(m.RunRoot)
	if err != nil {
		return halves, err
	}
	done = halves
	for _, e := range runs {
		uid := e.Name()
		if !uidPattern.MatchString(uid) || known[uid] {
			continue
		}
		if err := m.sweepRun(ctx, uid); err != nil {
			return done, err
		}
		done = append(done, "run "+uid+": removed, its container is no more")
	}
	return done, nil
}

// UIDs are those of all containers. What belongs to none of them may be deleted,
// so that anything unclear is an error: a directory whose configuration is missing
// or can't be read, or no directory of containers at all.
func (m *Manager) UIDs() (map[string]bool, error) {
	entries, err := os.ReadDir(filepath.Join(m.StateRoot, "containers"))
	if err != nil {
		return nil, fmt.Errorf("which containers there are is not known: %w", err)
	}
	uids := map[string]bool{}
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue
		}
		var c Config
		if err := configSchema.Read(m.configFile(e.Name()), &c); err != nil {
			return nil, fmt.Errorf("which containers there are is not known: %w", err)
		}
		uids[c.UID] = true
	}
	return uids, nil
}

// sweepHalfMade removes directories whose create was killed before it wrote a
// configuration; such a container has no volume yet.
func (m *Manager) sweepHalfMade() (done []string, err error) {
	entries, err := readDir(filepath.Join(m.StateRoot, "containers"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if CheckName(name) != nil {
			continue
		}
		if _, err := os.Lstat(m.configFile(name)); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if half, err := m.halfMade(name); err != nil || !half {
			return done, errors.Join(err, fmt.Errorf("%s is missing; put it back, or remove %s", m.configFile(name), m.dir(name)))
		}
		if err := statefile.RemoveTree(m.dir(name)); err != nil {
			return done, err
		}
		done = append(done, name+": removed, its create was interrupted")
	}
	return done, nil
}

// halfMade says that a directory without a configuration is what a create or a
// destroy left: it has no state either, or the state says so.
func (m *Manager) halfMade(name string) (bool, error) {
	var s State
	err := stateSchema.Read(m.stateFile(name), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return s.Intent != nil && (s.Intent.Op == "create" || s.Intent.Op == "destroy"), nil
}

func readDir(path string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

func (m *Manager) sweepRun(ctx context.Context, uid string) error {
	c := Config{UID: uid}
	g, err := quota.Open(c.CgroupName())
	if err != nil {
		return err
	}
	return errors.Join(
		g.KillAll(ctx), g.Remove(ctx),
		netns.Leave(ctx, netns.Config{UID: c.UID}, false),
		statefile.RemoveTree(m.runDir(uid)),
	)
}
