package container

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/ctctl/ctctl/internal/thread"
	"golang.org/x/sys/unix"
)

// Place is one end of a copy.
type Place struct {
	Container string // "" is the host
	Path      string
}

// ParsePlace reads NAME:PATH, or a path of the host. A path with a colon in it is
// the host's when it begins with ./ or /.
func ParsePlace(s string) Place {
	name, rest, ok := strings.Cut(s, ":")
	if ok && CheckName(name) == nil {
		return Place{Container: name, Path: rest}
	}
	return Place{Path: s}
}

func (p Place) String() string {
	if p.Container == "" {
		return p.Path
	}
	return p.Container + ":" + p.Path
}

// Copy copies a file, a symbolic link or a tree between the host and a
// container, or between containers. As with cp, what is copied to a directory
// keeps its name; "DIR/." stands for what is in DIR. What is copied into a
// container belongs to its root, what is copied out to the caller; permissions
// are kept, without set-user-id. A file appears whole or not at all. Devices,
// sockets and fifos are left out and make an error.
//
// A running container is written to as its own root sees it, tmpfs and volumes
// included; a stopped one on its root volume. A suspended container can only be
// read: its processes would find files changed. Errors: ErrNotFound, ErrState,
// ErrNoSupport, those of the files.
func (m *Manager) Copy(ctx context.Context, from, to Place) (err error) {
	defer wrapOp("cp", cmp.Or(to.Container, from.Container), &err)
	for _, p := range []Place{from, to} {
		if p.Path == "" {
			return fmt.Errorf("%w: no path in %q", ErrConfig, p.String())
		}
	}
	src, err := m.openEnd(ctx, from, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	dst, err := m.openEnd(ctx, to, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.close()) }()
	return asOwner(dst.owner, func() error { return copyBetween(ctx, src, dst) })
}

// end is one side of a copy that is under way.
type end struct {
	Place
	root  int // descriptor of a container's root; AT_FDCWD for the host
	owner int // who files made here must belong to, as this process numbers users
	lock  *Locked
}

func (m *Manager) openEnd(ctx context.Context, p Place, write bool) (*end, error) {
	if p.Container == "" {
		return &end{Place: p, root: unix.AT_FDCWD}, nil
	}
	info, err := m.get(p.Container)
	if err != nil {
		return nil, err
	}
	if info.Status == Running || info.Status == Paused {
		return openLive(p, info)
	}
	// Held, so that nobody starts it or exchanges the volume meanwhile.
	l, err := m.Lock(ctx, p.Container, "cp")
	if err != nil {
		return nil, err
	}
	e, err := openStopped(p, l, write)
	if err != nil {
		return nil, errors.Join(err, l.Unlock())
	}
	return e, nil
}

// openLive goes through init's root, where all mounts of the container are.
func openLive(p Place, info Info) (*end, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", info.Run.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil && !info.Run.Alive() { // the pid may be somebody else's now
		err = errors.Join(unix.ESRCH, unix.Close(fd))
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	e := &end{Place: p, root: fd}
	if ids := info.Config.IDs(); ids != nil {
		e.owner = int(ids.Base)
	}
	return e, nil
}

// openStopped goes through the root volume, whose ids are the container's own.
func openStopped(p Place, l *Locked, write bool) (*end, error) {
	want := []Status{Stopped, Running, Paused}
	if !write {
		want = append(want, Suspended)
	}
	if _, _, err := l.Require("cp", want...); err != nil {
		return nil, err
	}
	fd, err := unix.Open(l.m.Volumes.Path(l.State.Volume), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root volume: %w", err)
	}
	return &end{Place: p, root: fd, lock: l}, nil
}

func (e *end) close() error {
	var err error
	if e.root >= 0 {
		err = unix.Close(e.root)
	}
	if e.lock != nil {
		err = errors.Join(err, e.lock.Unlock())
	}
	return err
}

// open opens a path of this end. A container's links are followed within its
// root and never out of it, magic links of /proc not at all.
func (e *end) open(name string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	if e.Container == "" {
		fd, err := unix.Open(name, flags, 0)
		return fd, e.pathError("open", name, err)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(e.root, "./"+name, &how)
		if errors.Is(err, unix.EAGAIN) { // something was renamed while it was resolved
			continue
		}
		return fd, e.pathError("open", name, err)
	}
}

func (e *end) pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", op, Place{Container: e.Container, Path: name}, err)
}

// asOwner runs do with the file system ids that a container's root has on the
// host: the kernel refuses to make files in an id-mapped mount, or in a tmpfs of
// a user namespace, for a user that has no id there. The thread keeps its
// capabilities, is used for nothing else, and ends with do.
func asOwner(owner int, do func() error) error {
	if owner == 0 {
		return do()
	}
	return thread.Spend(func() error {
		if err := becomeOwner(owner); err != nil {
			return fmt.Errorf("become the container's root: %w", err)
		}
		return do()
	})
}

// split gives the directory and the last part of a path. The last part is "."
// when what is in the directory is meant.
func split(p string) (dir, base string) {
	trimmed := strings.TrimRight(p, "/")
	if trimmed == "" {
		return "/", "."
	}
	dir, base = path.Split(trimmed)
	if base == ".." {
		return trimmed, "."
	}
	if dir == "" {
		dir = "."
	}
	return dir, base
}
