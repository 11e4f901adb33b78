package profile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// Detect finds out which init the program init of the root file system in dir is,
// by its name at the end of all links and by what is written in it. A program that
// can't be read, or is not there, is Other: starting it will say what is wrong.
func Detect(dir, init string) (Found, error) {
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return Found{}, fmt.Errorf("look for the init: %w", err)
	}
	defer root.Close()
	program, name, err := openIn(root, init)
	if err != nil {
		return Found{Init: Other}, nil //nolint:nilerr // documented
	}
	defer program.Close()
	switch name {
	case "systemd":
		v, err := systemdVersion(program)
		if err != nil {
			return Found{}, fmt.Errorf("look for systemd's version: %w", err)
		}
		return Found{Init: Systemd, Version: v}, nil
	case "openrc-init":
		return Found{Init: OpenRC}, nil
	case "busybox":
		if hasFile(root, "/sbin/openrc") {
			return Found{Init: OpenRC}, nil
		}
		return Found{Init: Busybox}, nil
	}
	switch {
	case hasFile(root, "/sbin/openrc"):
		return Found{Init: OpenRC}, nil
	case hasFile(root, "/etc/inittab"):
		return Found{Init: SysV}, nil
	}
	return Found{Init: Other}, nil
}

// openIn opens a regular file as a process with its root there would, and gives the
// name that it has at the end of all links.
func openIn(root *os.File, name string) (*os.File, string, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(root.Fd()), name, &how)
	for errors.Is(err, unix.EAGAIN) { // something was renamed while it was resolved
		fd, err = unix.Openat2(int(root.Fd()), name, &how)
	}
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: name, Err: errors.New("is not a regular file")}
	}
	full := ""
	if err == nil {
		full, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, path.Base(full), nil
}

func hasFile(root *os.File, name string) bool {
	f, _, err := openIn(root, name)
	return err == nil && f.Close() == nil
}

// sharedLibrary is what systemd is linked with; its name carries the version, after
// which distributions may put more ("257.9-1.fc42").
var sharedLibrary = regexp.MustCompile(`libsystemd-(?:shared|core)-([0-9]{2,4})\b`)

// programLimit is several times the size of any systemd.
const programLimit = 32 << 20

// systemdVersion reads the major version from the program; 0 when it is not in it.
func systemdVersion(program io.Reader) (int, error) {
	b, err := io.ReadAll(io.LimitReader(program, programLimit))
	if err != nil {
		return 0, err
	}
	m := sharedLibrary.FindSubmatch(b)
	if m == nil {
		return 0, nil
	}
	return strconv.Atoi(string(m[1]))
}
