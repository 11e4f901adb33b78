package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

const (
	// loopBlockSize is btrfs' sector size; it also meets the alignment that
	// direct I/O asks for on any disk.
	loopBlockSize = 4096
	// loopTries bounds how often another program may grab the free device
	// between asking for it and taking it.
	loopTries = 64
	// loopReleaseWait is how long a device may take to let go of its file
	// after the last unmount.
	loopReleaseWait = 10 * time.Second
)

// attachLoop connects backing to a free loop device. The device disconnects
// itself when the last user is gone (LO_FLAGS_AUTOCLEAR), and the descriptor
// that is returned is the first one. Kernel 5.8.
func attachLoop(backing *os.File) (dev *os.File, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices: %w", err)
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("loop device: %w", err)
		}
		if err = configureLoop(dev, backing); err == nil {
			return dev, nil
		}
		err = errors.Join(err, dev.Close())
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", backing.Name(), dev.Name(), err)
		}
	}
	return nil, errors.New("no loop device stays free long enough to be used")
}

// configureLoop prefers direct I/O, without which every page of the pool is
// cached twice; file systems that have none refuse it with EINVAL.
func configureLoop(dev, backing *os.File) error {
	c := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: loopBlockSize}
	c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(c.Info.File_name[:len(c.Info.File_name)-1], backing.Name())
	err := unix.IoctlLoopConfigure(int(dev.Fd()), &c)
	if errors.Is(err, unix.EINVAL) {
		c.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
	}
	return err
}

// fileID names a file whatever its path in this or another mount namespace.
type fileID struct{ dev, ino uint64 }

func identify(f *os.File) (fileID, unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileID{}, st, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return fileID{dev: st.Dev, ino: st.Ino}, st, nil
}

// findLoop returns the path of the loop device that the file is attached to,
// "" when there is none. A second device over the same file would corrupt it.
func findLoop(backing fileID) (string, error) {
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		path := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(d)))
		is, err := loopBacks(path, backing)
		if err != nil || is {
			return path, err
		}
	}
	return "", nil
}

// loopBacks tells whether the loop device at path is attached to that file.
func loopBacks(path string, backing fileID) (is bool, err error) {
	dev, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("loop device: %w", err)
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("status of %s: %w", path, err)
	}
	return info.Inode == backing.ino && info.Device == backing.dev, nil
}

// resizeLoop makes the device as large as its file has become.
func resizeLoop(path string) (err error) {
	dev, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0) // a mounted device may refuse writers
	if err != nil {
		return fmt.Errorf("loop device: %w", err)
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	return nil
}

// waitLoopFree waits until the file's last loop device has let go of it.
func waitLoopFree(ctx context.Context, backing fileID) error {
	ctx, cancel := context.WithTimeout(ctx, loopReleaseWait)
	defer cancel()
	for {
		dev, err := findLoop(backing)
		if err != nil || dev == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s is still held by another mount namespace or program", storage.ErrInUse, dev)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
