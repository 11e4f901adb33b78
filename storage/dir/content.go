package dir

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// chunkBytes is how much is copied before the context is looked at again.
const chunkBytes = 64 << 20

// content makes out hold the same as in: by sharing the blocks, else by
// copying what is data and leaving out what are holes.
func (c *copier) content(in, out *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		if err == nil {
			return nil
		}
		// EINVAL is about this file, as one with nodatacow on btrfs.
		if !cannot(err) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("share data: %w", err)
		}
		c.noClone = cannot(err)
	}
	for at := int64(0); at < size; {
		start, end, err := nextData(in, at, size)
		if err != nil {
			return err
		}
		if err := c.stretch(in, out, start, end); err != nil {
			return err
		}
		at = end
	}
	return out.Truncate(size)
}

// nextData finds data at or after at: [start, end), empty at the file's end.
func nextData(in *os.File, at, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if errors.Is(err, unix.EINVAL) { // a file system that can't tell
		return at, size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find data: %w", err)
	}
	if start >= size { // grew meanwhile
		return size, size, nil
	}
	end, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find hole: %w", err)
	}
	return start, min(end, size), nil
}

// stretch copies [start, end), in the kernel when it can. A file that became
// shorter meanwhile is no error.
func (c *copier) stretch(in, out *os.File, start, end int64) error {
	for start < end {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		n, err := c.chunk(in, out, start, int(min(end-start, chunkBytes)))
		if err != nil {
			return fmt.Errorf("copy data: %w", err)
		}
		if n == 0 {
			return nil
		}
		start += int64(n)
	}
	return nil
}

func (c *copier) chunk(in, out *os.File, at int64, n int) (int, error) {
	if !c.noRange {
		from, to := at, at
		done, err := unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, n, 0)
		for errors.Is(err, unix.EINTR) {
			done, err = unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, n, 0)
		}
		if err == nil {
			return done, nil
		}
		if !cannot(err) && !errors.Is(err, unix.EINVAL) {
			return 0, err
		}
		c.noRange = cannot(err)
	}
	if c.buffer == nil {
		c.buffer = make([]byte, 1<<20)
	}
	done, err := in.ReadAt(c.buffer[:min(n, len(c.buffer))], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return out.WriteAt(c.buffer[:done], at)
}

// cannot tells errors that will be the same for every file of the tree.
func cannot(err error) bool {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EXDEV, unix.ENOTTY, unix.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
