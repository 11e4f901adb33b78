package btrfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

const (
	poolFile  = "pool.img"
	poolDir   = "pool"
	poolLock  = "pool.lock"
	poolLabel = "ctctl"
)

// pool is a btrfs file system in a file.
type pool struct {
	root string
	log  *slog.Logger
	// autoGrow lets it grow when it runs short.
	autoGrow bool
	quota    bool
}

func (p *pool) file() string       { return filepath.Join(p.root, poolFile) }
func (p *pool) mountPoint() string { return filepath.Join(p.root, poolDir) }

// locked runs f while no other process makes, attaches, grows or detaches.
func (p *pool) locked(ctx context.Context, op string, f func() error) error {
	lock, err := statefile.WaitLock(ctx, filepath.Join(p.root, poolLock), op)
	if err != nil {
		return err
	}
	return errors.Join(f(), lock.Unlock())
}

// open makes, attaches and mounts the pool as far as that isn't done yet. Each
// step finds out by itself, so that a crash between any two is mended here.
func (p *pool) open(ctx context.Context, o Options) error {
	return p.locked(ctx, "open pool", func() error {
		if err := p.ensureFile(ctx, o); err != nil {
			return err
		}
		if err := p.ensureMounted(); err != nil {
			return err
		}
		if err := p.ensureSize(o); err != nil {
			return err
		}
		return p.ensureReady()
	})
}

// ensureMounted mounts the pool unless it is. A device that is attached
// already, for instance by another mount namespace, is used again: two devices
// over one file would corrupt it.
func (p *pool) ensureMounted() (err error) {
	backing, id, err := p.openFile()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backing.Close()) }()
	m, mounted, err := topMount(p.mountPoint())
	if err != nil {
		return err
	}
	if mounted {
		is, err := loopBacks(m.source, id)
		if err != nil || is && m.kind == "btrfs" {
			return err
		}
		return fmt.Errorf("%w: %s is a mount point of %s, which is not the pool", storage.ErrInUse, m.point, m.source)
	}
	path, err := findLoop(id)
	if err != nil {
		return err
	}
	var dev *os.File
	if path == "" {
		dev, err = attachLoop(backing)
	} else {
		dev, err = os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	// The mount holds the device from here on, or nobody does and it goes.
	defer func() { err = errors.Join(err, dev.Close()) }()
	return p.mount(dev.Name())
}

// mount has no nosuid, since container roots are id-mapped copies of it and
// need their setuid programs. Nothing mounted below may spread elsewhere.
func (p *pool) mount(device string) error {
	if err := os.Mkdir(p.mountPoint(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	full, err := p.fullyAllocated()
	if err != nil {
		return err
	}
	options := ""
	if full {
		options = "nodiscard" // discarding would punch holes into the preallocated file
	}
	err = unix.Mount(device, p.mountPoint(), "btrfs", unix.MS_NODEV|unix.MS_NOATIME, options)
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: this kernel has no btrfs", storage.ErrUnsupported)
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", p.file(), err)
	}
	if err := unix.Mount("", p.mountPoint(), "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mount %s private: %w", p.mountPoint(), errors.Join(err, unix.Unmount(p.mountPoint(), 0)))
	}
	return nil
}

// ensureReady switches simple quotas on, before there is a volume, and makes
// the directory of the volumes, which is the sign that all is done.
func (p *pool) ensureReady() (err error) {
	top, err := os.Open(p.mountPoint())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	if p.quota, err = simpleQuotaOn(top); err != nil {
		return err
	}
	able, err := kernelAtLeast(6, 7)
	if err != nil {
		return err
	}
	if !p.quota && able {
		if err := p.enableQuota(top); err != nil {
			return err
		}
	}
	volumes := filepath.Join(p.mountPoint(), "volumes")
	if err := os.Mkdir(volumes, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (p *pool) enableQuota(top *os.File) error {
	if _, err := os.Lstat(filepath.Join(p.mountPoint(), "volumes")); err == nil {
		p.log.Warn("simple quotas are switched on late: data written before counts for no limit", "op", "open pool")
	}
	if err := enableSimpleQuota(top); err != nil {
		return fmt.Errorf("enable simple quotas: %w", err)
	}
	p.quota = true
	return nil
}

func (p *pool) openFile() (*os.File, fileID, error) {
	f, err := os.OpenFile(p.file(), os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fileID{}, err
	}
	id, _, err := identify(f)
	if err != nil {
		return nil, id, errors.Join(err, f.Close())
	}
	return f, id, nil
}

// detach unmounts only when nobody has a copy of the mount: a loop device that
// lives on in another mount namespace could not be seen any more.
func (p *pool) detach(ctx context.Context) error {
	return p.locked(ctx, "detach pool", func() (err error) {
		backing, id, err := p.openFile()
		if err != nil {
			return err
		}
		if err := backing.Close(); err != nil {
			return err
		}
		m, mounted, err := topMount(p.mountPoint())
		if err != nil {
			return err
		}
		if mounted {
			if err := waitUnshared(ctx, m); err != nil {
				return err
			}
			if err := unix.Unmount(p.mountPoint(), unix.UMOUNT_NOFOLLOW); err != nil {
				return fmt.Errorf("unmount %s: %w", p.mountPoint(), err)
			}
		}
		return waitLoopFree(ctx, id)
	})
}
