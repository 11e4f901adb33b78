package criu

import (
	"context"
	"errors"
	"fmt"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fsnotify"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// nameWatches gives inotify watches on files of the root the path of their file.
//
// CRIU (4.2.1, criu/fsnotify.c, check_open_handle) stores a path with a watch where
// opening that path, links followed, leads to the file that is watched. A watch on a
// link itself, such as systemd's on /etc/localtime, gets a bare file handle, which on
// btrfs names the subvolume too. On another snapshot or copy of the root it leads to
// the file in the old one, which nobody uses any more, or, once that is deleted, the
// restore fails with `Unable to open (null)`. CRIU's own way out, force-irmap, looks
// for the file by a device number that differs from the one stat(2) shows on btrfs.
//
// The path carries the watch to wherever the root is. There it becomes a handle
// again, see rootedImages: given the path CRIU would watch what the link leads to,
// and fail where that is watched, too.
func (f *fixer) nameWatches(ctx context.Context) (err error) {
	var s *watchSearch
	defer func() {
		if s != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for i, e := range f.files {
		changed := false
		for _, w := range e.GetIfy().GetWd() {
			if w.GetFHandle() == nil || w.GetFHandle().Path != nil || f.o.Root == "" {
				continue
			}
			if s == nil {
				s, err = openSearch(f.o)
				if errors.Is(err, unix.EOPNOTSUPP) {
					return nil // where there are no handles, none is of a file there
				}
				if err != nil {
					return err
				}
			}
			changed = f.nameWatch(ctx, s, e.GetId(), w) || changed
		}
		if changed {
			if err := f.update(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameWatch returns whether it changed the watch of an inotify.
func (f *fixer) nameWatch(ctx context.Context, s *watchSearch, id uint32, w *fsnotify.InotifyWdEntry) bool {
	path, err := s.find(ctx, w)
	switch {
	case errors.Is(err, errForeign), errors.Is(err, errUnlinked):
		// What is mounted from elsewhere stays where it is, and a deleted file that
		// is open CRIU brings back itself.
		return false
	case err != nil:
		f.note(FixWatchUnresolved, filesName, "watch %d of inotify %#x, on inode %d: %v", w.GetWd(), id, w.GetIIno(), err)
		return false
	}
	f.note(FixWatch, filesName, "watch %d of inotify %#x is on /%s", w.GetWd(), id, path)
	w.FHandle.Path = proto.String("/" + path)
	return true
}

// watchSearch finds the names of watched files.
type watchSearch struct {
	root *fileTree
	copy *fileTree // nil without a snapshot
}

func openSearch(o FixOptions) (*watchSearch, error) {
	root, err := openTree(o.Root)
	if err != nil {
		return nil, err
	}
	s := &watchSearch{root: root}
	if o.Snapshot == "" || !root.top.btrfs() {
		return s, nil
	}
	if s.copy, err = openTree(o.Snapshot); err != nil {
		return nil, errors.Join(err, root.close())
	}
	if !s.copy.top.btrfs() {
		return nil, errors.Join(fmt.Errorf("%s is no snapshot of %s", o.Snapshot, o.Root), s.close())
	}
	return s, nil
}

func (s *watchSearch) close() error {
	err := s.root.close()
	if s.copy != nil {
		err = errors.Join(err, s.copy.close())
	}
	return err
}

// find returns the path of a watched file below the root, errForeign when it is not
// of the root's file system.
func (s *watchSearch) find(ctx context.Context, w *fsnotify.InotifyWdEntry) (string, error) {
	h, err := imageHandle(w.GetFHandle())
	if err != nil {
		return "", err
	}
	top := s.root.top
	switch {
	case h.kind != top.kind || len(h.data) != len(top.data):
		return "", errForeign
	case top.btrfs() && h.subvolume() != top.subvolume():
		return "", errForeign
	case !top.btrfs() && w.GetSDev() != s.root.device:
		return "", errForeign
	}
	if s.copy != nil {
		return s.copy.path(ctx, h.in(s.copy.top.subvolume()))
	}
	return s.root.path(ctx, h)
}
