package checkpoint

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// snapshotVolume is how the storage snapshots of containers are named.
var snapshotVolume = regexp.MustCompile(`^s-[0-9a-f]{16}-[0-9a-f]+$`)

// snapshotMounts finds where storage snapshots are mounted in this mount
// namespace: from mount point to volume.
func snapshotMounts() (map[string]string, error) {
	all, err := mountinfo.GetMounts(nil)
	return volumesAt(all), err
}

func volumesAt(mounts []*mountinfo.Info) map[string]string {
	out := map[string]string{}
	for _, m := range mounts {
		volume := path.Base(strings.TrimSuffix(m.Root, "//deleted"))
		if snapshotVolume.MatchString(volume) {
			out[m.Mountpoint] = volume
		} else {
			delete(out, m.Mountpoint) // covered by another mount
		}
	}
	return out
}

// notMounted refuses a volume that somebody looks into.
func notMounted(volume string) error {
	mounts, err := snapshotMounts()
	if err != nil {
		return err
	}
	for at, v := range mounts {
		if v == volume {
			return fmt.Errorf("%w: it is mounted on %s; ctctl snapshot umount %s", ErrMounted, at, at)
		}
	}
	return nil
}
