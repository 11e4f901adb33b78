package criu

import (
	"errors"
	"testing"

	remap "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	"google.golang.org/protobuf/proto"
)

func TestHasLinksTellsNamesOnDiskFromFilesInTheImage(t *testing.T) {
	dir := t.TempDir()
	if has, err := HasLinks(dir); has || err != nil {
		t.Errorf("without an image: %v, %v", has, err)
	}
	entry := func(kind remap.RemapType) *remap.RemapFilePathEntry {
		return &remap.RemapFilePathEntry{OrigId: proto.Uint32(1), RemapId: proto.Uint32(2), RemapType: kind.Enum()}
	}
	for _, c := range []struct {
		kinds []remap.RemapType
		want  bool
	}{
		{nil, false},
		{[]remap.RemapType{remap.RemapType_GHOST, remap.RemapType_PROCFS}, false},
		{[]remap.RemapType{remap.RemapType_GHOST, remap.RemapType_LINKED}, true},
	} {
		var messages []proto.Message
		for _, k := range c.kinds {
			messages = append(messages, entry(k))
		}
		writeImage(t, dir, "remap-fpath.img", magicRemap, messages...)
		if has, err := HasLinks(dir); has != c.want || err != nil {
			t.Errorf("%v: %v, %v", c.kinds, has, err)
		}
	}
	writeImage(t, dir, "remap-fpath.img", magicCore)
	if _, err := HasLinks(dir); !errors.Is(err, ErrBadImage) {
		t.Errorf("another magic: %v", err)
	}
}
