package quota

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// WithPool returns the group with a meaning for the device Pool: the disks below
// the file system that path, a directory or file of the container's volume, is
// on; or path itself if it is a block device.
func (g Group) WithPool(path string) Group {
	g.pool = path
	return g
}

// disks returns the numbers, "254:0", of the disks that a Device of an IOLimit
// means: one, or for Pool all that its file system is on. Limits hold for whole
// disks, so that a partition stands for its disk.
func (g Group) disks(device string) ([]string, error) {
	path := device
	if device == Pool {
		if path = g.pool; path == "" {
			return nil, fmt.Errorf("%w: it is not known here which disk the pool is on; name the device", ErrNoDevice)
		}
	}
	find := g.mounts.disks
	if find == nil {
		find = disksOf
	}
	numbers, err := find(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoDevice, device, err)
	}
	return numbers, nil
}

func disksOf(path string) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		number, err := wholeDisk(sysfs, st.Rdev)
		return []string{number}, err
	case unix.S_IFCHR:
		return nil, errors.New("is not a block device; lsblk lists them")
	}
	if unix.Major(st.Dev) != 0 {
		number, err := wholeDisk(sysfs, st.Dev)
		return []string{number}, err
	}
	return disksBelow(path) // btrfs gives every subvolume a number of its own
}

const sysfs = "/sys"

// wholeDisk finds the disk of a partition in sysfs, which is mounted at sys.
func wholeDisk(sys string, dev uint64) (string, error) {
	number := fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
	dir, err := filepath.EvalSymlinks(sys + "/dev/block/" + number)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no block device %s; lsblk lists them", number)
	}
	if err != nil {
		return "", err
	}
	if !exists(dir + "/partition") {
		return number, nil
	}
	return readText(filepath.Dir(dir) + "/dev")
}

// disksBelow finds the devices of a file system that has no device number of its
// own, by what is mounted there.
func disksBelow(path string) ([]string, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return nil, err
	}
	source, err := mountSource(fmt.Sprint(st.Mnt_id))
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(source, "/dev/") {
		return nil, fmt.Errorf("is on %q, which is not on one disk", source)
	}
	if real, err := filepath.EvalSymlinks(source); err == nil { // /dev/mapper, /dev/disk
		source = real
	}
	members, err := filepath.Glob(sysfs + "/fs/btrfs/*/devices/" + filepath.Base(source))
	if err != nil || len(members) == 0 {
		return disksOf(source)
	}
	return btrfsDisks(filepath.Dir(members[0]))
}

// btrfsDisks lists the devices of one btrfs.
func btrfsDisks(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		numbers, err := disksOf("/dev/" + strings.ReplaceAll(e.Name(), "!", "/"))
		if err != nil {
			return nil, err
		}
		all = append(all, numbers...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// mountSource reads mountinfo, proc_pid_mountinfo(5).
func mountSource(id string) (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		a, b := strings.Fields(left), strings.Fields(right)
		if ok && len(a) > 0 && a[0] == id && len(b) >= 2 {
			return unescape(b[1]), nil
		}
	}
	if err := sc.Err(); err != nil {
		return "", err
	}
	return "", errors.New("is on no mount that can be seen here")
}

// deviceName returns "/dev/vda" of "254:0"; the number itself if there is no such
// device any more.
func deviceName(number string) string {
	target, err := os.Readlink(sysfs + "/dev/block/" + number)
	if err != nil {
		return number
	}
	return "/dev/" + strings.ReplaceAll(filepath.Base(target), "!", "/")
}
