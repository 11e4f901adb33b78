package checkpoint

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
)

func TestMountedSnapshotsAreToldFromOtherMounts(t *testing.T) {
	info := `1 0 0:1 / / rw - ext4 /dev/sda rw
2 1 0:2 /volumes/s-0123456789abcdef-0badcafe /mnt/a rw - btrfs /dev/loop0 rw
3 1 0:2 /volumes/s-0123456789abcdef-0badf00d//deleted /mnt/with\040space rw - btrfs /dev/loop0 rw
4 1 0:2 /volumes/c-0123456789abcdef-1 /mnt/root rw - btrfs /dev/loop0 rw
5 1 0:3 /srv/s-files /mnt/other rw - ext4 /dev/sdb rw
6 1 0:2 /volumes/s-0123456789abcdef-0badcafe /mnt/covered rw - btrfs /dev/loop0 rw
7 6 0:4 / /mnt/covered rw - tmpfs tmpfs rw
`
	want := map[string]string{
		"/mnt/a":          "s-0123456789abcdef-0badcafe",
		"/mnt/with space": "s-0123456789abcdef-0badf00d",
	}
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(info), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, volumesAt(mounts)); d != "" {
		t.Error(d)
	}
}
