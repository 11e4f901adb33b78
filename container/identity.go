package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// identify writes what tells a new container from its template: /etc/hostname,
// /etc/hosts. The root is hostile (a template may hold any symlink), so files
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
	} else if host, err := os.ReadFile("/etc/resolv.conf"); err == nil && c.Network.NAT() {
		files[resolvFile] = string(host)
	}
	for name, text := range files {
		if err := writeIn(root, name, text); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func writeIn(root int, name, text string) error {
	how := unix.OpenHow{
		Flags: unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Mode: 0o644,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(root, name, &how)
	for errors.Is(err, unix.EAGAIN) { // something was renamed while it was resolved
		fd, err = unix.Openat2(root, name, &how)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		return errors.Join(&os.PathError{Op: "write", Path: name, Err: errors.New("is not a regular file")}, f.Close())
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
