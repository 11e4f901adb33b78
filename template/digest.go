package template

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// digestVersion begins what is hashed; it changes whenever the rest does.
const digestVersion = "ctctl tree digest 1"

// blockBytes is the unit in which content is hashed and copied. It must stay:
// it decides the digests.
const blockBytes = 64 << 10

// Digest reads the tree below a directory and returns "sha256:" and the hash of
// its canonical description, and the bytes that its files occupy on disk.
//
// The description has, for each name in byte order, depth first: path, type,
// permissions and set-id bits, owner, group, the extended attributes that a copy
// carries, and what the type adds: size and content, target of a symbolic link,
// device numbers. Times, link counts and the size of directories don't count.
// Content is described by offset and bytes of every 64 KiB block that is not
// all zeros, so that holes and written zeros are the same.
//
// A mount point in the tree is an error: what it hides could not be told.
func Digest(ctx context.Context, dir string) (digest string, sizeBytes int64, err error) {
	top, err := openTop(dir)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	d := &digester{h: sha256.New(), linked: map[inode]bool{}, buf: make([]byte, blockBytes)}
	d.text(digestVersion)
	if err := walk(ctx, top, d); err != nil {
		return "", 0, fmt.Errorf("digest: %w", err)
	}
	return "sha256:" + hex.EncodeToString(d.h.Sum(nil)), d.bytes, nil
}

type digester struct {
	h      hash.Hash
	bytes  int64
	linked map[inode]bool // files with several names, whose size was counted
	buf    []byte
}

func (d *digester) leave(node) error { return nil }

func (d *digester) mounted(n node) error {
	return fmt.Errorf("%q is a mount point", n.path)
}

func (d *digester) enter(ctx context.Context, n node) (bool, error) {
	d.count(n)
	d.text(n.path)
	d.number(uint64(n.st.Mode))
	d.number(uint64(n.st.Uid))
	d.number(uint64(n.st.Gid))
	switch n.kind() {
	case unix.S_IFREG:
		return false, d.file(ctx, n)
	case unix.S_IFLNK:
		target, err := readlinkAt(n.dir, n.name)
		if err != nil {
			return false, err
		}
		d.text(target)
	case unix.S_IFCHR, unix.S_IFBLK:
		d.number(n.st.Rdev)
	}
	f, err := handleAt(n.dir, n.name)
	if errors.Is(err, unix.EXDEV) {
		return false, d.mounted(n)
	}
	if err != nil {
		return false, err
	}
	return true, errors.Join(d.xattrs(f), f.Close())
}

func (d *digester) count(n node) {
	if n.kind() != unix.S_IFDIR && n.st.Nlink > 1 {
		if d.linked[n.inode()] {
			return
		}
		d.linked[n.inode()] = true
	}
	d.bytes += n.st.Blocks * 512 // stat(2)
}

func (d *digester) file(ctx context.Context, n node) error {
	f, err := n.open()
	if err != nil {
		return err
	}
	d.number(uint64(n.st.Size))
	err = eachBlock(ctx, f, n.st.Size, d.buf, func(off int64, b []byte) error {
		d.number(uint64(off))
		d.bytesOf(b)
		return nil
	})
	if err == nil {
		d.number(uint64(n.st.Size)) // no block begins there: the end
		err = d.xattrs(f)
	}
	return errors.Join(err, f.Close())
}

func (d *digester) xattrs(f *os.File) error {
	attrs, err := readXattrs(f)
	if err != nil {
		return err
	}
	d.number(uint64(len(attrs)))
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		d.text(name)
		d.bytesOf(attrs[name])
	}
	return nil
}

// Everything of variable length is preceded by its length, so that no two trees
// have the same description. A hash never returns an error.
func (d *digester) text(s string) { d.bytesOf([]byte(s)) }

func (d *digester) bytesOf(b []byte) {
	d.number(uint64(len(b)))
	_, _ = d.h.Write(b)
}

func (d *digester) number(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = d.h.Write(b[:])
}

// eachBlock calls do for every block of a file that holds something else than
// zeros. It asks the file system for holes, so that a file of a terabyte that
// was never written to costs nothing. buf has blockBytes.
func eachBlock(ctx context.Context, f *os.File, size int64, buf []byte, do func(off int64, b []byte) error) error {
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // a hole to the end
			return nil
		case err != nil: // this file system can't tell
			data = off
		}
		off = data - data%blockBytes
		if off >= size {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.ReadAt(buf[:min(blockBytes, size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if int64(n) < min(blockBytes, size-off) {
			return fmt.Errorf("shorter than its %d bytes", size)
		}
		if !allZero(buf[:n]) {
			if err := do(off, buf[:n]); err != nil {
				return err
			}
		}
		off += blockBytes
	}
	return nil
}

// holeBytes is the usual size of a file system's block: smaller holes save
// nothing.
const holeBytes = 4 << 10

// writeData writes what is not zeros of b, leaving holes in a new file.
func writeData(f *os.File, off int64, b []byte) error {
	for len(b) > 0 {
		n := 0 // bytes up to the next hole
		for n < len(b) && !allZero(b[n:min(n+holeBytes, len(b))]) {
			n = min(n+holeBytes, len(b))
		}
		if n > 0 {
			if _, err := f.WriteAt(b[:n], off); err != nil {
				return err
			}
		} else {
			n = min(holeBytes, len(b))
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

var zeros [blockBytes]byte

func allZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
