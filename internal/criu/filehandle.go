package criu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fh"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// Handles of btrfs (fs/btrfs/export.h): inode number and id of the subvolume, both
// 64 bit, then the generation. Longer ones begin like this too.
const (
	btrfsHandleType  = 0x4d
	btrfsHandleBytes = 20
	btrfsRootOffset  = 8
)

// handleWords is how many words of a handle CRIU wants in an image at least
// (images/fh.proto).
const handleWords = 16

// fileHandle is a name_to_handle_at(2) handle.
type fileHandle struct {
	kind int32
	data []byte
}

func (h fileHandle) equal(o fileHandle) bool { return h.kind == o.kind && bytes.Equal(h.data, o.data) }

// btrfs says whether it is one of a btrfs.
func (h fileHandle) btrfs() bool { return h.kind == btrfsHandleType && len(h.data) == btrfsHandleBytes }

// subvolume is where on a btrfs the file is.
func (h fileHandle) subvolume() uint64 { return binary.LittleEndian.Uint64(h.data[btrfsRootOffset:]) }

// inode is the file's number there.
func (h fileHandle) inode() uint64 { return binary.LittleEndian.Uint64(h.data) }

// in is the handle of the same file in another snapshot of the subvolume, where it
// has the number and generation that it had.
func (h fileHandle) in(subvolume uint64) fileHandle {
	h.data = bytes.Clone(h.data)
	binary.LittleEndian.PutUint64(h.data[btrfsRootOffset:], subvolume)
	return h
}

// imageHandle reads a handle as CRIU stores it.
func imageHandle(e *fh.FhEntry) (fileHandle, error) {
	words := e.GetHandle()
	if n := e.GetBytes(); n == 0 || n > 8*handleWords || int(n) > 8*len(words) {
		return fileHandle{}, fmt.Errorf("%w: file handle of %d bytes", ErrBadImage, n)
	}
	var data []byte
	for _, w := range words[:(e.GetBytes()+7)/8] {
		data = binary.LittleEndian.AppendUint64(data, w)
	}
	return fileHandle{kind: int32(e.GetType()), data: data[:e.GetBytes()]}, nil
}

// image is the handle as CRIU stores it.
func (h fileHandle) image() *fh.FhEntry {
	padded := make([]byte, 8*handleWords)
	copy(padded, h.data)
	e := &fh.FhEntry{Bytes: proto.Uint32(uint32(len(h.data))), Type: proto.Uint32(uint32(h.kind))}
	for ; len(padded) > 0; padded = padded[8:] {
		e.Handle = append(e.Handle, binary.LittleEndian.Uint64(padded))
	}
	return e
}

// fileTree looks files up below a directory that is not trusted.
type fileTree struct {
	dir *os.File
	// top is the directory's own handle, device its file system's number as the
	// kernel has it inside.
	top    fileHandle
	device uint32
	links  map[uint64][]string // all symbolic links by inode number, once needed
}

// openTree opens a directory; its error is EOPNOTSUPP on a file system that has no
// handles.
func openTree(path string) (*fileTree, error) {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	t := &fileTree{dir: dir}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	t.device = unix.Major(st.Dev)<<20 | unix.Minor(st.Dev)
	if t.top, err = handleOf(int(dir.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), dir.Close())
	}
	return t, nil
}

func (t *fileTree) close() error { return t.dir.Close() }

// handleOf returns the handle of an open file.
func handleOf(fd int) (fileHandle, error) {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return fileHandle{}, fmt.Errorf("name_to_handle_at: %w", err)
	}
	return fileHandle{kind: h.Type(), data: h.Bytes()}, nil
}

// handle returns the handle of what is at a path below the tree's top; a link that
// the path ends with is not followed, and none before is allowed.
func (t *fileTree) handle(path string) (fileHandle, error) {
	fd, err := unix.Openat2(int(t.dir.Fd()), filepath.Join(".", path), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return fileHandle{}, err
	}
	defer unix.Close(fd)
	return handleOf(fd)
}

var (
	errForeign  = errors.New("of another file system")
	errUnlinked = errors.New("deleted")
)

// path finds a name of the file that a handle stands for, relative to the tree's
// top. It is errUnlinked for a file without any.
func (t *fileTree) path(ctx context.Context, h fileHandle) (string, error) {
	fd, err := unix.OpenByHandleAt(int(t.dir.Fd()), unix.NewFileHandle(h.kind, h.data), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open_by_handle_at: %w", err)
	}
	f := os.NewFile(uintptr(fd), "handle")
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Nlink == 0 {
		return "", errUnlinked
	}
	// What the kernel calls it is right if it has the name in memory. Otherwise
	// btrfs can be asked, and elsewhere only looking helps.
	look := []func() ([]string, error){func() ([]string, error) { return t.knownNames(fd) }}
	if h.btrfs() {
		look = append(look, func() ([]string, error) { return btrfsNames(t.dir, h.inode()) })
	} else if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		look = append(look, func() ([]string, error) { return t.linksWith(ctx, st.Ino) })
	}
	for _, names := range look {
		candidates, err := names()
		if err != nil {
			return "", err
		}
		if path, ok := t.among(candidates, h); ok {
			return path, nil
		}
	}
	return "", errors.New("it has no name")
}

// among returns the first of the paths that leads to the file.
func (t *fileTree) among(paths []string, h fileHandle) (string, bool) {
	for _, path := range paths {
		if got, err := t.handle(path); err == nil && got.equal(h) {
			return path, true
		}
	}
	return "", false
}

// knownNames returns the path that the kernel shows for a descriptor, if it is below
// the top.
func (t *fileTree) knownNames(fd int) ([]string, error) {
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd()))
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, err
	}
	if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(top, "/")+"/"); ok {
		return []string{rel}, nil
	}
	return nil, nil
}

// linkLimit bounds how many files are looked at for links: tens of seconds.
const linkLimit = 5_000_000

// linksWith returns the symbolic links that have an inode number. The first call
// walks through the tree; links made later are not found.
func (t *fileTree) linksWith(ctx context.Context, inode uint64) ([]string, error) {
	if t.links != nil {
		return t.links[inode], nil
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	links, seen := map[uint64][]string{}, 0
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if seen++; seen > linkLimit {
			return fs.SkipAll
		}
		if err != nil || d.Type() != fs.ModeSymlink {
			return ctx.Err() // what can't be read, or is gone by now, holds nothing we want
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				links[st.Ino] = append(links[st.Ino], path)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	t.links = links
	return links[inode], nil
}

// inoPaths is struct btrfs_ioctl_ino_path_args of BTRFS_IOC_INO_PATHS, and
// pathsBytes how much it may return (btrfs(5), ioctl numbers in linux/btrfs.h).
type inoPaths struct {
	inode, size uint64
	_           [4]uint64
	into        uint64
}

const (
	btrfsInoPaths = 3<<30 | unsafe.Sizeof(inoPaths{})<<16 | 0x94<<8 | 35
	pathsBytes    = 4096
	pathsHead     = 16 // of struct btrfs_data_container
)

// btrfsNames asks btrfs for all paths of an inode in dir's subvolume; those that
// don't fit into a page are left out.
func btrfsNames(dir *os.File, inode uint64) ([]string, error) {
	buf := make([]uint64, pathsBytes/8)
	var pin runtime.Pinner
	pin.Pin(&buf[0])
	defer pin.Unpin()
	arg := inoPaths{inode: inode, size: pathsBytes, into: uint64(uintptr(unsafe.Pointer(&buf[0])))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), btrfsInoPaths, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return nil, fmt.Errorf("BTRFS_IOC_INO_PATHS: %w", errno)
	}
	var b []byte
	for _, w := range buf {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return parseInoPaths(b), nil
}

// parseInoPaths reads a struct btrfs_data_container: after four 32 bit counts, of
// which the third says how many, the offsets of the names from there on.
func parseInoPaths(b []byte) (names []string) {
	if len(b) < pathsHead {
		return nil
	}
	n := binary.NativeEndian.Uint32(b[8:])
	b = b[pathsHead:]
	for i := 0; i < int(min(n, uint32(len(b)/8))); i++ {
		at := binary.NativeEndian.Uint64(b[8*i:])
		if at >= uint64(len(b)) {
			continue
		}
		if name, _, ok := bytes.Cut(b[at:], []byte{0}); ok && len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names
}
