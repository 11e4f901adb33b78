package container

import (
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// dropForeignPools unmounts the pools of other state roots from this process's
// own mount namespace. A new namespace has a copy of every mount, and a copy of a
// pool would keep its host from ever detaching it.
func dropForeignPools(stateRoot string, log *slog.Logger) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("btrfs"))
	if err != nil {
		log.Error("read the mounts", "err", err)
		return
	}
	for _, at := range foreignPools(mounts, stateRoot) {
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			log.Warn("unmount another pool", "mount", at, "err", err)
		}
	}
}

// foreignPools finds loop-mounted btrfs file systems on a directory named pool
// beside a pool.img, other than the state root's own.
func foreignPools(mounts []*mountinfo.Info, stateRoot string) []string {
	var out []string
	for _, m := range mounts {
		if m.FSType != "btrfs" || !strings.HasPrefix(m.Source, "/dev/loop") {
			continue
		}
		if filepath.Base(m.Mountpoint) == "pool" && filepath.Dir(m.Mountpoint) != stateRoot {
			out = append(out, m.Mountpoint)
		}
	}
	return out
}
