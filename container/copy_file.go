package container

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// partName is what a file is called while it is written.
func partName() string { return ".ctctl-" + newUID() }

// writeFile makes name in the directory into, whole or not at all. A link of that
// name is replaced, not followed.
func writeFile(ctx context.Context, in *os.File, into int, name string, mode uint32) (err error) {
	part := partName()
	fd, err := unix.Openat(into, part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreAbsent(unix.Unlinkat(into, part, 0)))
		}
	}()
	err = copyData(ctx, out, in)
	if err == nil {
		err = unix.Fchmod(fd, mode)
	}
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return unix.Renameat(into, part, into, name)
}

// chunkBytes is how much is copied between two looks at the context.
const chunkBytes = 32 << 20

func copyData(ctx context.Context, out, in *os.File) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(out, in, chunkBytes)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyLink makes a symbolic link with the same text.
func copyLink(from, into int, name string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(from, "", buf)
	if err != nil {
		return err
	}
	part := partName()
	if err := unix.Symlinkat(string(buf[:n]), into, part); err != nil {
		return err
	}
	if err := unix.Renameat(into, part, into, name); err != nil {
		return errors.Join(err, unix.Unlinkat(into, part, 0))
	}
	return nil
}
