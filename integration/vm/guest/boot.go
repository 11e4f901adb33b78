//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	newRoot = "/root"
	disk    = "/dev/vda"
	program = "/run/vm-guest"
	// deviceTimeout is long: an emulated machine on a busy one takes its time.
	deviceTimeout = time.Minute
)

// unit is started early and survives to the last moment of a shutdown, so that
// the rig can look into what goes on. What it has started goes on without it.
const unit = `[Unit]
Description=The test rig's hand in this machine
DefaultDependencies=no
After=systemd-remount-fs.service systemd-udevd.service
[Service]
ExecStart=` + program + `
Restart=always
KillMode=process
[Install]
WantedBy=sysinit.target
`

// boot returns only with an error.
func boot() error {
	if err := mountFirst(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := await(disk); err != nil {
		return err
	}
	if err := unix.Mount(disk, newRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	if err := unix.Mount("tmpfs", newRoot+"/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=20%"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := leaveService(newRoot); err != nil {
		return err
	}
	return enter()
}

func mountFirst() error {
	for _, m := range []struct{ at, kind string }{{"/dev", "devtmpfs"}, {"/proc", "proc"}, {"/sys", "sysfs"}} {
		if err := errors.Join(os.MkdirAll(m.at, 0o755), unix.Mount(m.kind, m.at, m.kind, 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	return os.MkdirAll(newRoot, 0o755)
}

// loadModules loads the modules of a directory in the order of their names.
func loadModules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func await(path string) error {
	for end := time.Now().Add(deviceTimeout); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		} else if time.Now().After(end) {
			return err
		}
	}
}

// leaveService puts this program and its unit below the new root's /run.
func leaveService(root string) error {
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	wants := root + "/run/systemd/system/sysinit.target.wants"
	return errors.Join(
		os.WriteFile(root+program, self, 0o755),
		os.MkdirAll(wants, 0o755),
		os.WriteFile(root+"/run/systemd/system/vm-guest.service", []byte(unit), 0o644),
		os.Symlink("../vm-guest.service", wants+"/vm-guest.service"),
	)
}

// enter makes the new root the root and becomes its init. The initramfs keeps
// its few MiB.
func enter() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := errors.Join(unix.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=linux"})
}
