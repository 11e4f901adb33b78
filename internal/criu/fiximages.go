package criu

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"google.golang.org/protobuf/proto"
)

// FixKind names what was wrong with an image.
type FixKind string

// What FixImages does. FixWatchUnresolved is no change: it names a watch that it
// could not help.
const (
	FixWatch           FixKind = "inotify-path"
	FixWatchUnresolved FixKind = "inotify-unresolved"
	FixExe             FixKind = "exe-link"
	FixListener        FixKind = "listener-first"
)

// Fix is one change that FixImages made.
type Fix struct {
	Kind FixKind
	// File is the image that was changed, such as "files.img".
	File string
	// Detail says what is different now; control characters are escaped, as paths
	// in it are the container's.
	Detail string
}

// String is "KIND: FILE: DETAIL".
func (f Fix) String() string { return string(f.Kind) + ": " + f.File + ": " + f.Detail }

// FixOptions say where the tree's files are, and for whom the images are.
type FixOptions struct {
	// Root is the directory on the host that was the tree's root when it was dumped;
	// "" leaves watches alone.
	Root string
	// Snapshot is a copy of Root from the instant of the dump, to look into instead
	// where the file system keeps inode numbers in it (a btrfs snapshot does): the
	// tree may have gone on since and replaced files. "" looks into Root.
	Snapshot string
	// Version is that of the CRIU that will restore the images; it turns off what
	// that no longer needs. Zero does everything.
	Version Version
}

// imageFix is something that CRIU stores in a way that it can't restore from.
type imageFix struct {
	kind FixKind
	// lastKnown is the newest CRIU that was seen to need it, and cured the first that
	// was seen not to; zero: none yet. A version that nobody has looked at gets the
	// fix, which harms none.
	lastKnown, cured Version
	apply            func(*fixer, context.Context) error
}

// neededBy says whether images for a CRIU want this fix.
func (f imageFix) neededBy(v Version) bool {
	return v == Version{} || f.cured == Version{} || v.Less(f.cured)
}

// imageFixes are applied in this order. The tests restore the same images without
// each of them: as soon as the installed CRIU can, they ask for cured.
//
// Page counts are not among them. Since 4.2 CRIU has written them to a new field of
// its pagemaps, and nothing to the old one that go-criu v7 reads. CRIU itself reads
// the new one, and nothing here reads pagemaps: sizes come from the statistics.
func imageFixes() []imageFix {
	return []imageFix{
		{kind: FixWatch, lastKnown: Version{4, 2, 1}, apply: (*fixer).nameWatches},
		{kind: FixExe, lastKnown: Version{4, 2, 1}, apply: (*fixer).separateExes},
		{kind: FixListener, lastKnown: Version{4, 2, 1}, apply: (*fixer).listenersFirst},
	}
}

// FixImages rewrites what CRIU has dumped where it can't restore from it, or not on
// another copy of the root, and says what it changed. It may be called again. Each
// file is replaced whole, mode kept; a crash in between leaves images that are as
// good as before. Digests of the files must be taken afterwards.
//
// The contents come from the tree and are not trusted: names are looked up below
// Root only. Errors: [ErrBadImage]; a watch whose file is not found is none.
func FixImages(ctx context.Context, dir string, o FixOptions) (fixes []Fix, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("fix the images: %w", err)
		}
	}()
	f := &fixer{dir: dir, o: o}
	if err := f.load(); err != nil {
		return nil, err
	}
	for _, fix := range imageFixes() {
		if err := ctx.Err(); err != nil {
			return f.fixes, err
		}
		if !fix.neededBy(o.Version) {
			continue
		}
		if err := fix.apply(f, ctx); err != nil {
			return f.fixes, err
		}
	}
	return f.fixes, f.save()
}

// imageLimit bounds an image file that is read whole. CRIU needs about 200 bytes
// for an open file.
const imageLimit = 256 << 20

// fixer has files.img in memory.
type fixer struct {
	dir     string
	o       FixOptions
	entries [][]byte // as they are on disk, but for those changed
	files   []*fdinfo.FileEntry
	changed bool
	fixes   []Fix
}

const filesName = "files.img"

func (f *fixer) load() error {
	var err error
	f.entries, f.files, err = readFiles(f.dir)
	return err
}

// readFiles returns the entries of files.img, as they are and decoded.
func readFiles(dir string) ([][]byte, []*fdinfo.FileEntry, error) {
	entries, err := readImageLimited(filepath.Join(dir, filesName), magicFiles)
	if err != nil {
		return nil, nil, err
	}
	files := make([]*fdinfo.FileEntry, len(entries))
	for i, b := range entries {
		files[i] = new(fdinfo.FileEntry)
		if err := proto.Unmarshal(b, files[i]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w: %w", filesName, ErrBadImage, err)
		}
	}
	return entries, files, nil
}

// readImageLimited is readImage for files that are foreign and need not be small.
func readImageLimited(path string, magic uint32) ([][]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > imageLimit {
		return nil, fmt.Errorf("%s: %w: %d bytes", path, ErrBadImage, st.Size())
	}
	return readImage(path, magic)
}

// update makes a change of f.files[i] one of the image.
func (f *fixer) update(i int) error {
	b, err := proto.Marshal(f.files[i])
	if err != nil {
		return fmt.Errorf("%s: %w", filesName, err)
	}
	f.entries[i], f.changed = b, true
	return nil
}

// add appends an open file under an id that no other has.
func (f *fixer) add(e *fdinfo.FileEntry) error {
	f.files, f.entries = append(f.files, e), append(f.entries, nil)
	return f.update(len(f.files) - 1)
}

// freeID returns an id that no open file has.
func (f *fixer) freeID() (uint32, error) {
	var last uint32
	for _, e := range f.files {
		last = max(last, e.GetId())
	}
	if last == math.MaxUint32 {
		return 0, fmt.Errorf("%s: %w: no id is left", filesName, ErrBadImage)
	}
	return last + 1, nil
}

func (f *fixer) note(kind FixKind, file, format string, args ...any) {
	f.fixes = append(f.fixes, Fix{Kind: kind, File: file, Detail: escape(fmt.Sprintf(format, args...))})
}

// save writes files.img if it has changed.
func (f *fixer) save() error {
	if !f.changed {
		return nil
	}
	f.changed = false
	return replaceImage(filepath.Join(f.dir, filesName), encodeImage(magicFiles, f.entries...))
}

// absent tells an image that CRIU had no reason to write.
func absent(err error) bool { return errors.Is(err, os.ErrNotExist) }
