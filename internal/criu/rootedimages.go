package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fsnotify"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mnt"
	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// magicMounts marks mountpoints-NS.img.
const magicMounts = 0x55563928

// rootedImages returns the directory of images to restore on a root: o.Images, or,
// where watches need file handles of this very root, a directory beside it with the
// same files by hard links and a files.img of its own. done removes that.
//
// CRIU (4.2.1) follows links when it restores a watch from a path, so the paths that
// FixImages has stored are turned back into handles, of the file that is there now.
// They are told from CRIU's own by having no mount id.
func (o RestoreOptions) rootedImages() (dir string, done func() error, err error) {
	done = func() error { return nil }
	entries, files, err := readFiles(o.Images)
	if absent(err) { // that is CRIU's to complain about
		return o.Images, done, nil
	}
	if err != nil {
		return "", done, err
	}
	root := o.Root
	if root == "" {
		root = "/"
	}
	changed, err := rootWatches(o.Images, root, entries, files)
	if err != nil || !changed {
		return o.Images, done, err
	}
	dir, err = os.MkdirTemp(filepath.Dir(filepath.Clean(o.Images)), "restore-*.tmp")
	if err != nil {
		return "", done, err
	}
	done = func() error { return statefile.RemoveTree(dir) }
	err = linkImages(o.Images, dir)
	if err == nil {
		name := filepath.Join(dir, filesName)
		err = os.WriteFile(name, encodeImage(magicFiles, entries...), 0o600)
		// Whatever the umask: the tree's root reads them, see MakeReadable.
		err = errors.Join(err, os.Chmod(name, 0o644), os.Chmod(dir, 0o711))
	}
	if err != nil {
		return "", func() error { return nil }, errors.Join(err, done())
	}
	return dir, done, nil
}

// linkImages makes hard links of all image files but files.img, and the same link
// to the images before these in a chain.
func linkImages(from, to string) error {
	all, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range all {
		old, name := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Name() == "parent" && e.Type() == os.ModeSymlink:
			target, err := os.Readlink(old)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, name); err != nil {
				return err
			}
		case e.Name() != filesName && e.Type().IsRegular() && filepath.Ext(e.Name()) == ".img":
			if err := os.Link(old, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// rootWatches changes the entries of watches that need it.
func rootWatches(images, root string, entries [][]byte, files []*fdinfo.FileEntry) (changed bool, err error) {
	var tree *fileTree
	var devices map[uint32]bool
	for i, e := range files {
		again := false
		for _, w := range e.GetIfy().GetWd() {
			if !namedByUs(w) {
				continue
			}
			if tree == nil {
				if devices, err = mountedDevices(images); err != nil {
					return false, err
				}
				tree, err = openTree(root)
				if errors.Is(err, unix.EOPNOTSUPP) {
					return false, nil // it has paths only
				}
				if err != nil {
					return false, err
				}
				defer tree.close()
			}
			// CRIU opens a handle on a mount of the device that it was dumped from.
			if !devices[w.GetSDev()] {
				continue
			}
			h, err := tree.handle(strings.TrimPrefix(w.GetFHandle().GetPath(), "/"))
			if err != nil {
				continue // CRIU looks at the path, and says what is wrong with it
			}
			w.FHandle = h.image()
			again = true
		}
		if !again {
			continue
		}
		if entries[i], err = proto.Marshal(e); err != nil {
			return false, fmt.Errorf("%s: %w", filesName, err)
		}
		changed = true
	}
	return changed, nil
}

func namedByUs(w *fsnotify.InotifyWdEntry) bool {
	h := w.GetFHandle()
	return h.GetPath() != "" && h.MntId == nil
}

// mountedDevices returns the device numbers of the tree's mounts as they were.
func mountedDevices(images string) (map[uint32]bool, error) {
	names, err := filepath.Glob(filepath.Join(images, "mountpoints-*.img"))
	if err != nil {
		return nil, err
	}
	devices := map[uint32]bool{}
	for _, name := range names {
		entries, err := readImageLimited(name, magicMounts)
		if err != nil {
			return nil, err
		}
		for _, b := range entries {
			var m mnt.MntEntry
			if err := proto.Unmarshal(b, &m); err != nil {
				return nil, fmt.Errorf("%s: %w: %w", name, ErrBadImage, err)
			}
			devices[m.GetRootDev()] = true
		}
	}
	return devices, nil
}
