package quota

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

func TestAPartitionStandsForItsDisk(t *testing.T) {
	sys := t.TempDir()
	put(t, sys, map[string]string{
		"devices/pci/sda/dev": "8:0", "devices/pci/sda/sda1/dev": "8:1", "devices/pci/sda/sda1/partition": "1",
		"dev/block/unused": "",
	})
	for number, dir := range map[string]string{"8:0": "sda", "8:1": "sda/sda1"} {
		if err := os.Symlink("../../devices/pci/"+dir, sys+"/dev/block/"+number); err != nil {
			t.Fatal(err)
		}
	}
	for minor := range uint32(2) {
		if got, err := wholeDisk(sys, unix.Mkdev(8, minor)); err != nil || got != "8:0" {
			t.Errorf("8:%d is of the disk %q, %v", minor, got, err)
		}
	}
	if got, err := wholeDisk(sys, unix.Mkdev(8, 2)); err == nil || !strings.Contains(err.Error(), "no block device 8:2") {
		t.Errorf("a device that is not there: %q, %v", got, err)
	}
}

func TestWhatIsNoDiskIsRefused(t *testing.T) {
	g := fakeV2(t)
	g.mounts.disks = nil
	for device, why := range map[string]string{
		"/dev/null":            "is not a block device",
		"/dev/no-such-disk-at": "no such file",
	} {
		err := g.Apply(Limits{IO: []IOLimit{{Device: device, ReadBPS: 1 << 20}}})
		if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), device) {
			t.Errorf("%s: %v", device, err)
		}
	}
	err := g.WithPool("/proc").Apply(Limits{IO: []IOLimit{{Device: Pool, ReadBPS: 1 << 20}}})
	if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "not on one disk") {
		t.Errorf("a pool in memory: %v", err)
	}
}

// A subvolume of btrfs has a device number that belongs to no device.
func TestThePoolOfABtrfsIsTheDeviceBelow(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Btrfs)
	dir := testutil.TempDir(t)
	image, point := dir+"/image", dir+"/pool"
	command := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	command("truncate", "-s", "128M", image)
	command("mkfs.btrfs", "-q", image)
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	command("mount", "-o", "loop", image, point)
	t.Cleanup(func() { command("umount", point) })
	command("btrfs", "-q", "subvolume", "create", point+"/sub")
	device := command("findmnt", "-n", "-o", "SOURCE", point)
	numbers, err := disksOf(point + "/sub")
	if err != nil || len(numbers) != 1 || deviceName(numbers[0]) != device {
		t.Errorf("got %v, %v, want %s", numbers, err, device)
	}
}
