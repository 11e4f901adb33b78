package criu

import (
	"fmt"
	"path/filepath"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/timerfd"
	"google.golang.org/protobuf/proto"
)

// magicFiles marks files.img, all open files of the tree.
const magicFiles = 0x56303138

// RearmTimers rewrites an image directory so that periodic timerfds that had
// expired when they were dumped go on after a restore. CRIU (4.2) saves such a
// timer with the time to its next expiry as the kernel shows it, which is zero
// until somebody reads the descriptor, and zero disarms it when it is set again
// (timerfd_create(2)). Every timer with a period below the time the container
// stands still is in that state. One nanosecond instead makes it expire anew at
// once, and the kernel counts on from there when it is read.
func RearmTimers(images string) error {
	path := filepath.Join(images, "files.img")
	entries, err := readImage(path, magicFiles)
	if err != nil {
		return fmt.Errorf("rearm timers: %w", err)
	}
	changed := false
	for i, b := range entries {
		var e fdinfo.FileEntry
		if err := proto.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("rearm timers: files.img: %w: %w", ErrBadImage, err)
		}
		if !isStuck(e.GetTfd()) {
			continue
		}
		e.Tfd.Vnsec = proto.Uint64(1)
		if entries[i], err = proto.Marshal(&e); err != nil {
			return fmt.Errorf("rearm timers: %w", err)
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return replaceImage(path, encodeImage(magicFiles, entries...))
}

// isStuck tells a periodic timer that has expired from one that was disarmed:
// only the first has ticks that nobody has read.
func isStuck(t *timerfd.TimerfdEntry) bool {
	periodic := t.GetIsec() != 0 || t.GetInsec() != 0
	return periodic && t.GetTicks() > 0 && t.GetVsec() == 0 && t.GetVnsec() == 0
}
