package storagetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// holeBytes is the hole in the sparse file, too large to be copied by reading.
const holeBytes = 1 << 36

// populate makes a tree with everything that a copy could lose.
func populate(t *testing.T, top string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(top, name) }
	must(t, os.Mkdir(p("dir"), 0o750))
	must(t, os.MkdirAll(p("dir/sub/subsub"), 0o755))
	must(t, os.Mkdir(p("sticky"), 0o700))
	must(t, os.Mkdir(p("group"), 0o700))
	write(t, p("dir/file"), "content")
	write(t, p("empty"), "")
	write(t, p("new\nline"), "odd name")
	write(t, p("bytes\xff\xfe"), "no UTF-8")
	write(t, p(".hidden"), "dot")
	write(t, p("setuid"), "#!/bin/true")
	write(t, p("capable"), "#!/bin/true")
	must(t, fill(p("large"), 3*mib))
	sparse(t, p("sparse"))
	must(t, os.Link(p("dir/file"), p("dir/sub/link")))
	must(t, os.Link(p("dir/file"), p("link")))
	must(t, os.Symlink("/etc/passwd", p("symlink")))
	must(t, os.Symlink("../../../dangling", p("dir/symlink")))
	must(t, os.Link(p("symlink"), p("symlink2")))
	must(t, unix.Mkfifo(p("fifo"), 0o620))
	must(t, unix.Mknod(p("socket"), unix.S_IFSOCK|0o755, 0))
	must(t, unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(p("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300))))
	for _, name := range []string{"dir/file", "dir/sub", "symlink", "fifo", "null", "setuid"} {
		must(t, os.Lchown(p(name), 1234, 4_000_000_000))
	}
	must(t, unix.Chmod(p("setuid"), 0o6755))
	must(t, unix.Chmod(p("sticky"), 0o1777))
	must(t, unix.Chmod(p("group"), 0o2775))
	must(t, unix.Chmod(p("dir/sub"), 0o000))
	must(t, unix.Setxattr(p("dir"), "user.note", []byte("of a directory"), 0))
	must(t, unix.Setxattr(p("dir/file"), "user.empty", nil, 0))
	must(t, unix.Setxattr(p("dir/file"), "trusted.note", bytes.Repeat([]byte{0, 1}, 500), 0))
	must(t, unix.Lsetxattr(p("symlink"), "trusted.link", []byte("of a link"), 0))
	must(t, unix.Lsetxattr(p("fifo"), "trusted.fifo", []byte("of a fifo"), 0))
	// cap_net_raw+ep, as in VFS_CAP_REVISION_2 of linux/capability.h.
	netRaw := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	must(t, unix.Setxattr(p("capable"), "security.capability", netRaw, 0))
	age(t, top)
}

func sparse(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), holeBytes/2)
	must(t, err)
	must(t, f.Truncate(holeBytes)) // and a hole at the end
	must(t, f.Close())
}

// age gives everything times of its own, with nanoseconds, one before 1970.
func age(t *testing.T, top string) {
	t.Helper()
	var paths []string
	must(t, filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	for i, path := range slices.Backward(paths) {
		at := time.Unix(int64(1_000_000_000-i*60_000_000), int64(123_456_789+i))
		ts := []unix.Timespec{unix.NsecToTimespec(at.Add(time.Hour).UnixNano()), unix.NsecToTimespec(at.UnixNano())}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// scribble changes each of the things that populate made.
func scribble(t *testing.T, top string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(top, name) }
	f, err := os.OpenFile(p("large"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("scribble"), mib)
	must(t, err)
	must(t, f.Close())
	f, err = os.OpenFile(p("link"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(" and more")
	must(t, err)
	must(t, f.Close())
	write(t, p("new"), "new")
	must(t, os.Remove(p("empty")))
	must(t, os.Rename(p("dir/sub"), p("moved")))
	must(t, os.Chmod(p("setuid"), 0o600))
	must(t, os.Lchown(p("symlink"), 1, 1))
	must(t, unix.Removexattr(p("dir"), "user.note"))
}

// entry is all that a copy has to preserve of one file.
type entry struct {
	Mode, UID, GID uint32
	Nlink          uint64
	Size           int64
	Rdev           uint64
	Modified       time.Time
	Accessed       time.Time
	Target         string
	Digest         string
	Xattrs         map[string]string
	// Twin is the first path with the same inode.
	Twin string
	// Sparse tells whether blocks are missing.
	Sparse bool
}

// describe maps each path below top, and ".", to what it is.
func describe(t *testing.T, top string) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	first := map[uint64]string{}
	var walk func(rel string)
	walk = func(rel string) {
		path := filepath.Join(top, rel)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if first[st.Ino] == "" {
			first[st.Ino] = rel
		}
		e := entry{
			Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint64(st.Nlink), Rdev: uint64(st.Rdev),
			Modified: time.Unix(st.Mtim.Unix()), Accessed: time.Unix(st.Atim.Unix()), Xattrs: xattrs(t, path), Twin: first[st.Ino],
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			e.Nlink = 0 // file systems count subdirectories or don't
			for _, name := range names(t, path) {
				walk(filepath.Join(rel, name))
			}
		case unix.S_IFREG:
			e.Size, e.Sparse = st.Size, st.Size > mib && st.Blocks*512 < st.Size/2
			e.Digest = digest(t, path)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			e.Size, e.Target, e.Accessed = st.Size, target, time.Time{} // reading a link touches it
		}
		all[rel] = e
	}
	walk(".")
	return all
}

func openQuietly(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME|unix.O_NOFOLLOW, 0)
	must(t, err)
	return f
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	f := openQuietly(t, dir)
	all, err := f.Readdirnames(-1)
	must(t, err)
	must(t, f.Close())
	slices.Sort(all)
	return all
}

// digest reads data and skips holes; where they are is part of it.
func digest(t *testing.T, path string) string {
	t.Helper()
	f := openQuietly(t, path)
	h := sha256.New()
	for at := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		must(t, err)
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		must(t, err)
		_, err = io.Copy(h, io.NewSectionReader(f, start, end-start))
		must(t, err)
		at = end
	}
	must(t, f.Close())
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func xattrs(t *testing.T, path string) map[string]string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	all := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		must(t, err)
		all[string(name)] = string(value[:n])
	}
	return all
}
