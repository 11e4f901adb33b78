package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// apart is the cgroup of processes that look after containers. No Group can have
// its name, so nothing limits, freezes or kills it.
const apart = "/ctctl.supervisors"

// StandApart moves a process out of the cgroup of the login session or the
// service that started it, with which systemd would end or limit it. Only the
// hierarchies by which systemd knows a unit's processes are touched: cgroup2 and,
// on v1, name=systemd. Without either it does nothing.
func StandApart(pid int) error {
	m, err := readMounts()
	if err != nil {
		return err
	}
	return m.standApart(pid)
}

func (m mounts) standApart(pid int) error {
	var errs []error
	for _, dir := range m.apart() {
		if err := moveApart(dir, pid); err != nil {
			errs = append(errs, fmt.Errorf("leave the starter's cgroup: %w", err))
		}
	}
	return errors.Join(errs...)
}

func moveApart(dir string, pid int) (err error) {
	for range 3 { // RemoveApart may come between
		if err = os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err = writeText(dir+"/cgroup.procs", strconv.Itoa(pid)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

func (m mounts) apart() []string {
	var dirs []string
	if m.unified != "" {
		dirs = append(dirs, m.unified+apart)
	}
	if point, ok := m.v1["name=systemd"]; ok {
		dirs = append(dirs, point+apart)
	}
	return dirs
}

// RemoveApart removes what StandApart made, unless processes are there.
func RemoveApart() error {
	m, err := readMounts()
	if err != nil {
		return err
	}
	return m.removeApart()
}

func (m mounts) removeApart() error {
	var errs []error
	for _, dir := range m.apart() {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, &fs.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	return errors.Join(errs...)
}
