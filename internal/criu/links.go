package criu

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	remap "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	"google.golang.org/protobuf/proto"
)

// magicRemap marks remap-fpath.img, the open files whose names are gone.
const magicRemap = 0x59133954

// HasLinks says whether a restore of these images needs names that CRIU has made
// on disk while it dumped: link_remap.N beside each open file that was deleted
// under the name it was opened by but has another one. CRIU removes them again
// when it lets the tasks go on, so only a snapshot of the file system taken in
// between (in the post-dump notification) has them.
func HasLinks(images string) (bool, error) {
	entries, err := readImage(filepath.Join(images, "remap-fpath.img"), magicRemap)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for links: %w", err)
	}
	for _, b := range entries {
		var e remap.RemapFilePathEntry
		if err := proto.Unmarshal(b, &e); err != nil {
			return false, fmt.Errorf("look for links: remap-fpath.img: %w: %w", ErrBadImage, err)
		}
		if e.GetRemapType() == remap.RemapType_LINKED {
			return true, nil
		}
	}
	return false, nil
}
