package checkpoint

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// snapshotVolume is how the storage snapshots of containers are named.
var snapshotVolume = regexp.MustCompile(`^s-[0-9a-f]{16}-[0-9a-f]+$`)

// snapshotMounts finds where storage snapshots are mounted in this mount
// namespace: from mount point to volume.
func snapshotMounts() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseSnapshotMounts(string(b)), nil
}

// parseSnapshotMounts reads mountinfo (proc_pid_mountinfo(5)): field 4 is the root
// of the mount within its file system, field 5 the mount point.
func parseSnapshotMounts(mountinfo string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		volume := path.Base(strings.TrimSuffix(f[3], "//deleted"))
		if snapshotVolume.MatchString(volume) {
			out[unescape(f[4])] = volume
		} else {
			delete(out, unescape(f[4])) // covered by another mount
		}
	}
	return out
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)

// unescape undoes the octal escapes of mountinfo: \040 is a space.
func unescape(s string) string {
	return octal.ReplaceAllStringFunc(s, func(e string) string {
		n, err := strconv.ParseUint(e[1:], 8, 8)
		if err != nil {
			return e
		}
		return string([]byte{byte(n)})
	})
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
