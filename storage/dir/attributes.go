package dir

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// copyAttributes gives to the owner, mode, extended attributes and times of
// from, in the only order that works: chown drops setuid bits and
// capabilities, and everything changes times. Both may be O_PATH descriptors.
func copyAttributes(from, to *os.File, st unix.Stat_t) error {
	if err := unix.Fchownat(int(to.Fd()), "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(procPath(to), st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(int(to.Fd()), "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func copyXattrs(from, to *os.File) error {
	names, err := grow(func(b []byte) (int, error) { return unix.Listxattr(procPath(from), b) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for raw := range bytes.SplitSeq(names, []byte{0}) {
		name := string(raw)
		if name == "" {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Getxattr(procPath(from), name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err == nil {
			err = unix.Setxattr(procPath(to), name, value, 0)
		}
		if err != nil {
			return fmt.Errorf("extended attribute %q: %w", name, err)
		}
	}
	return nil
}

// maxXattr is XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
const maxXattr = 64 << 10

// grow calls read with a buffer that is small at first, as most values are.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	b := make([]byte, 256)
	n, err := read(b)
	if errors.Is(err, unix.ERANGE) {
		b = make([]byte, maxXattr)
		n, err = read(b)
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}
