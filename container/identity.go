package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// identify writes what tells a new container from its template: /etc/hostname,
// /etc/hosts, ssh host keys. The root is hostile (a template may hold any symlink), so files
// are opened below it and nowhere else, and a root without /etc is left alone.
func identify(volume string, c Config) error {
	root, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	files := map[string]string{
		hostnameFile: c.Hostname + "\n",
		hostsFile:    fmt.Sprintf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n", c.Hostname),
	}
	if len(c.Network.DNS)+len(c.Network.Search) > 0 {
		files[resolvFile] = resolvConf(c)
	} else if host := hostResolver(); host != "" && c.Network.NAT() {
		files[resolvFile] = host
	}
	for name, text := range files {
		if err := writeIn(root, name, text); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := giveHostKeys(root, "root@"+c.Hostname); err != nil {
		return fmt.Errorf("ssh host keys: %w", err)
	}
	return nil
}

// writeIn makes a file say the text, with mode 0644 if it was not there.
func writeIn(root int, name, text string) error { return writeModeIn(root, name, text, 0o644) }

// writeModeIn makes a file say the text. What is there is looked at before it is
// opened: with some devices opening is an act already (a watchdog starts, a tape
// rewinds). mode is for a file that was not there.
func writeModeIn(root int, name, text string, mode uint64) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := openBelow(root, name, how)
	if errors.Is(err, unix.ENOENT) { // it is new, or a link that leads to where a file can be made
		how.Flags = unix.O_WRONLY | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
		how.Mode = mode
		if fd, err = openBelow(root, name, how); err == nil {
			return writeTo(os.NewFile(uintptr(fd), name), text)
		}
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errNotRegular(name)
	}
	f, err := reopen(fd, name, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	return writeTo(f, text)
}

func errNotRegular(name string) error {
	return &os.PathError{Op: "write", Path: name, Err: errors.New("is not a regular file")}
}

// openBelow tries again when something was renamed while the name was resolved.
func openBelow(root int, name string, how unix.OpenHow) (fd int, err error) {
	for {
		if fd, err = unix.Openat2(root, name, &how); !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// writeTo replaces what a file has, and closes it.
func writeTo(f *os.File, text string) error {
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errNotRegular(f.Name())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
