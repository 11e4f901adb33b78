package container

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dropForeignPools unmounts the pools of other state roots from this process's
// own mount namespace. A new namespace has a copy of every mount, and a copy of a
// pool would keep its host from ever detaching it.
func dropForeignPools(stateRoot string, log *slog.Logger) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		log.Error("read the mounts", "err", err)
		return
	}
	for _, at := range foreignPools(string(b), stateRoot) {
		if err := unix.Unmount(at, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			log.Warn("unmount another pool", "mount", at, "err", err)
		}
	}
}

// foreignPools finds loop-mounted btrfs file systems on a directory named pool
// beside a pool.img, other than the state root's own.
func foreignPools(mountinfo, stateRoot string) []string {
	var out []string
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 2 || g[0] != "btrfs" || !strings.HasPrefix(g[1], "/dev/loop") {
			continue
		}
		if filepath.Base(f[4]) == "pool" && filepath.Dir(f[4]) != stateRoot {
			out = append(out, f[4])
		}
	}
	return out
}
