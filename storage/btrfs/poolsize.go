package btrfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// ensureFile makes the pool file unless it is there. It gets its name only
// when mkfs is through, so a file of that name is always a file system.
func (p *pool) ensureFile(ctx context.Context, o Options) error {
	_, err := os.Lstat(p.file())
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	size, err := p.newSize(o)
	if err != nil {
		return err
	}
	if err := p.removeHalfMade(); err != nil {
		return err
	}
	temp, err := p.makeFile(ctx, size, o.Preallocate)
	if err == nil {
		err = os.Rename(temp, p.file())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make pool: %w", err), p.removeHalfMade())
	}
	return statefile.SyncDir(p.root)
}

// removeHalfMade is called with the lock held.
func (p *pool) removeHalfMade() error {
	left, err := filepath.Glob(p.file() + "*" + storage.TempSuffix)
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// newSize is the size of a new pool file; it must fit.
func (p *pool) newSize(o Options) (int64, error) {
	total, free, err := statfs(p.root)
	if err != nil {
		return 0, err
	}
	size := roundUp(o.PoolBytes)
	if o.PoolBytes == 0 {
		size = defaultPoolBytes(free)
	}
	have := free - hostReserve(total)
	if need := max(size, minPoolBytes); need > have {
		return 0, fmt.Errorf("%w: a pool of %d MiB in %s, where %d MiB can be taken", storage.ErrNoSpace, need/mib, p.root, max(0, have)/mib)
	}
	if size < minPoolBytes {
		return 0, fmt.Errorf("a pool of %d MiB is too small: at least %d MiB", size/mib, minPoolBytes/mib)
	}
	return size, nil
}

// makeFile makes a pool under a name that was never used: an mkfs that lives on
// after its caller was killed must not find the next one's file.
func (p *pool) makeFile(ctx context.Context, size int64, preallocate bool) (path string, err error) {
	f, err := os.CreateTemp(p.root, poolFile+".*"+storage.TempSuffix)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if preallocate {
		err = allocate(f, 0, size)
	} else {
		err = f.Truncate(size)
	}
	if err != nil {
		return "", err
	}
	if err := mkfs(ctx, f.Name()); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

// mkfs runs mkfs.btrfs; -K because discarding would give preallocated blocks
// back, and the blocks of a sparse file need none.
func mkfs(ctx context.Context, path string) error {
	program, err := findMkfs()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, "-q", "-K", "-L", poolLabel, path)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = []string{"PATH=" + sbinPath, "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("mkfs.btrfs: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

const sbinPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// findMkfs looks beyond PATH, which lacks sbin in many a root shell.
func findMkfs() (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH") + ":" + sbinPath) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(dir, "mkfs.btrfs")); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: mkfs.btrfs is not installed (package btrfs-progs)", storage.ErrUnsupported)
}

// allocate gives [from, to) of the file its blocks, all or none.
func allocate(f *os.File, from, to int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("allocate %d MiB: %w", (to-from)/mib, errors.Join(err, f.Truncate(from)))
		}
	}
}

func statfs(path string) (total, free int64, err error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize, nil
}

// fileSize is the size of the pool file and how much of it has no blocks yet.
func (p *pool) fileSize() (size, unallocated int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(p.file(), &st); err != nil {
		return 0, 0, fmt.Errorf("stat %s: %w", p.file(), err)
	}
	return st.Size, max(0, st.Size-st.Blocks*512), nil
}

func (p *pool) fullyAllocated() (bool, error) {
	_, unallocated, err := p.fileSize()
	return unallocated == 0, err
}

func (p *pool) room() (r room, err error) {
	if r.poolTotal, r.poolFree, err = statfs(p.mountPoint()); err != nil {
		return r, err
	}
	if r.hostTotal, r.hostFree, err = statfs(p.root); err != nil {
		return r, err
	}
	_, r.unallocated, err = p.fileSize()
	return r, err
}

// ensureSize finishes a growth that a crash interrupted, and grows to the size
// asked for.
func (p *pool) ensureSize(o Options) error {
	size, _, err := p.fileSize()
	if err != nil {
		return err
	}
	total, _, err := statfs(p.mountPoint())
	if err != nil {
		return err
	}
	want := roundUp(o.PoolBytes)
	if want > size {
		return p.growLocked(want)
	}
	if total+mib > size { // btrfs leaves less than a sector group at the end unused
		return nil
	}
	return p.fill()
}

func (p *pool) grow(ctx context.Context, bytes int64) error {
	return p.locked(ctx, "grow pool", func() error { return p.growLocked(roundUp(bytes)) })
}

// growLocked extends the file, then the device, then the file system; each
// step is harmless without the next.
func (p *pool) growLocked(want int64) (err error) {
	size, unallocated, err := p.fileSize()
	if err != nil || want <= size {
		return err
	}
	total, free, err := statfs(p.root)
	if err != nil {
		return err
	}
	have := free - hostReserve(total)
	if need := want - size + unallocated; need > have {
		return fmt.Errorf("%w: the pool may claim %d MiB more from %s, where %d MiB can be taken", storage.ErrNoSpace, need/mib, p.root, max(0, have)/mib)
	}
	f, _, err := p.openFile()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if unallocated == 0 {
		err = allocate(f, size, want)
	} else {
		err = f.Truncate(want)
	}
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return p.fill()
}

// fill makes the device and the file system as large as the file.
func (p *pool) fill() (err error) {
	m, mounted, err := topMount(p.mountPoint())
	if err != nil {
		return err
	}
	if !mounted {
		return fmt.Errorf("the pool is not mounted at %s", p.mountPoint())
	}
	if err := resizeLoop(m.source); err != nil {
		return err
	}
	top, err := os.Open(p.mountPoint())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	if err := resizeToDevice(top); err != nil {
		return fmt.Errorf("resize the file system: %w", err)
	}
	return nil
}

// relieve grows the pool if it runs short and may. That it can't is no reason
// to fail what is being done; what needs the room fails by itself.
func (p *pool) relieve(ctx context.Context) {
	if !p.autoGrow {
		return
	}
	r, err := p.room()
	if err == nil && (r.unallocated == 0 || r.grown() == 0) {
		return // a preallocated pool has the size it was given
	}
	if err == nil {
		err = p.grow(ctx, r.grown())
	}
	if err != nil {
		p.log.Warn("the pool runs short and does not grow", "op", "grow pool", "err", err)
	}
}
