package dir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// meta is what is remembered of a volume outside of it.
type meta struct {
	ReadOnly bool   `json:"readOnly"`
	Group    uint64 `json:"group"`
}

var metaSchema = statefile.Schema{Kind: "volume", Version: 1}

// raceTries bounds how often a sweep may take away a directory just made.
const raceTries = 8

func (d *Driver) path(name string) string     { return filepath.Join(d.volumes, name) }
func (d *Driver) metaDir() string             { return filepath.Join(d.volumes, ".meta") }
func (d *Driver) metaPath(name string) string { return filepath.Join(d.metaDir(), name+".json") }

// readMeta of a volume without metadata, as one that somebody put there by
// hand, says what is the default.
func (d *Driver) readMeta(name string) (m meta, err error) {
	err = metaSchema.Read(d.metaPath(name), &m)
	if errors.Is(err, os.ErrNotExist) {
		return meta{}, nil
	}
	return m, err
}

// locked runs f while no volume appears or disappears otherwise.
func (d *Driver) locked(ctx context.Context, op string, f func() error) error {
	lock, err := statefile.WaitLock(ctx, filepath.Join(d.volumes, ".lock"), op)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Unlock())
}

func (d *Driver) mustBeAbsent(name string) error {
	_, err := os.Lstat(d.path(name))
	if err == nil {
		return storage.ErrExists
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// open opens the top directory of a volume without following links.
func (d *Driver) open(name string) (*os.File, error) {
	if err := storage.CheckName(name); err != nil {
		return nil, err
	}
	return openDir(d.path(name))
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NOATIME|unix.O_CLOEXEC, 0)
}

func (d *Driver) tempPath(name string) string {
	return d.path(name + "." + strings.ToLower(rand.Text()[:10]) + storage.TempSuffix)
}

// newTemp makes the directory that a volume is built in. It is locked
// (flock(2)) as long as it is open, which tells it from a leftover.
func (d *Driver) newTemp(name string) (*os.File, error) {
	for range raceTries {
		path := d.tempPath(name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, err
		}
		f, err := openDir(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // swept before it was locked
		}
		if err != nil {
			return nil, err
		}
		kept, err := claim(f)
		if err == nil && kept {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("new directories are swept away again and again")
}

// claim locks a temporary directory; false when a sweep has it, or had.
func claim(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	_, err = os.Lstat(f.Name())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// sweep removes temporary directories that nobody has locked. What can't be
// removed is no reason to do without the volumes.
func (d *Driver) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(d.volumes)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.IsDir() || !strings.HasSuffix(e.Name(), storage.TempSuffix) {
			continue
		}
		if err := sweepOne(d.path(e.Name())); err != nil {
			d.log.Warn("a leftover of an interrupted operation can't be removed", "op", "open storage", "err", err)
		}
	}
	return nil
}

func sweepOne(path string) (err error) {
	f, err := openDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ours, err := claim(f)
	if err != nil || !ours {
		return err
	}
	return statefile.RemoveTree(path)
}

// grave is a volume that has lost its name and waits to be removed.
type grave struct {
	name, temp string
	dir        *os.File
	meta       meta
}

// bury renames a volume away; nil when there is none.
func (d *Driver) bury(name string) (*grave, error) {
	g := &grave{name: name, temp: d.tempPath(name)}
	dir, err := d.open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	g.dir = dir
	if g.meta, err = d.readMeta(name); err != nil {
		d.log.Warn("the metadata of a volume can't be read; it is deleted all the same", "op", "delete volume", "err", err)
	}
	if err = d.entomb(g); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return g, nil
}

func (d *Driver) entomb(g *grave) error {
	// Keeps sweeps away. A container may hold the lock on its top directory;
	// then a sweep stays away too, or helps with removing.
	err := unix.Flock(int(g.dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("lock %s: %w", g.dir.Name(), err)
	}
	if err := os.Rename(d.path(g.name), g.temp); err != nil {
		return err
	}
	if err := os.Remove(d.metaPath(g.name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return statefile.SyncDir(d.volumes)
}

// exhume gives a volume its name back, unless somebody uses it by now.
func (d *Driver) exhume(g *grave) error {
	if err := d.mustBeAbsent(g.name); err != nil {
		return err
	}
	if err := metaSchema.Write(d.metaPath(g.name), g.meta); err != nil {
		return err
	}
	if err := os.Rename(g.temp, d.path(g.name)); err != nil {
		return err
	}
	return statefile.SyncDir(d.volumes)
}
