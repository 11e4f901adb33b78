package template

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// neutralFiles replace what mmdebstrap copied from the host and what identifies
// a machine. An empty machine-id gets a value at the first boot and, unlike an
// absent one, does not make systemd enable all units anew (machine-id(5)).
var neutralFiles = map[string]string{
	"etc/machine-id":  "",
	"etc/hostname":    "localhost\n",
	"etc/resolv.conf": "# Written when a container is created.\n",
}

// neutralPatterns name files below directories that are removed.
var neutralPatterns = []struct{ dir, pattern string }{
	{"etc/ssh", "ssh_host_*"},
	{"var/lib/dbus", "machine-id"},
	{"var/lib/systemd", "random-seed"},
	{"var/cache/apt", "*.bin"},
	{"var/cache/apt/archives", "*.deb"},
	{"var/lib/apt/lists", "*_*"}, // one for each index, named after its URL
	{"usr/sbin", "policy-rc.d"},
}

// neutralise removes identity and caches from a tree that was just built. It
// follows links only inside the tree: the packages' scripts have run as root in
// there, but in a chroot.
func neutralise(ctx context.Context, dir string) (err error) {
	top, err := openTop(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	for _, n := range neutralPatterns {
		if err := removeMatching(top, n.dir, n.pattern); err != nil {
			return err
		}
	}
	for name, content := range neutralFiles {
		if err := replaceNeutral(top, name, content); err != nil {
			return err
		}
	}
	return walk(ctx, top, deviceRemover{})
}

// removeMatching removes the entries of a directory that are no directories.
func removeMatching(top *os.File, name, pattern string) error {
	dir, err := openAt(top, name, unix.O_RDONLY|unix.O_DIRECTORY, 0, inRoot)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	for _, entry := range names {
		ok, bad := path.Match(pattern, entry)
		if bad != nil {
			return errors.Join(err, bad, dir.Close())
		}
		if ok {
			failed := unix.Unlinkat(int(dir.Fd()), entry, 0)
			if failed != nil && !errors.Is(failed, unix.EISDIR) {
				err = errors.Join(err, &os.PathError{Op: "unlink", Path: name + "/" + entry, Err: failed})
			}
		}
	}
	return errors.Join(err, dir.Close())
}

// replaceNeutral writes a file anew. A link stays: it leads to what a service
// in the container makes (systemd-resolved), or to one of the other files.
func replaceNeutral(top *os.File, name, content string) error {
	dir, base, err := openParent(top, name)
	if err != nil {
		return err
	}
	st, err := lstatAt(dir, base)
	if err == nil && st.Mode&typeMask == unix.S_IFLNK {
		return dir.Close()
	}
	err = clearName(dir, base)
	if err == nil {
		err = writeNew(dir, base, content)
	}
	return errors.Join(err, dir.Close())
}

func writeNew(dir *os.File, base, content string) error {
	f, err := openAt(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644, here)
	if err != nil {
		return err
	}
	_, err = strings.NewReader(content).WriteTo(f)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

// deviceRemover removes device nodes, as an import leaves them out.
type deviceRemover struct{}

func (deviceRemover) enter(_ context.Context, n node) (bool, error) {
	if k := n.kind(); k == unix.S_IFCHR || k == unix.S_IFBLK {
		return false, unix.Unlinkat(int(n.dir.Fd()), n.name, 0)
	}
	return true, nil
}

func (deviceRemover) leave(node) error { return nil }

func (deviceRemover) mounted(node) error {
	return errors.New("something is still mounted in the built tree")
}
