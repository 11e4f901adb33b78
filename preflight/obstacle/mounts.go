package obstacle

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mountKinds are mounts, and files on mounts that are not as they were.
var mountKinds = map[string]kind{
	"mount-ramfs":   {make: func() error { return mount("ramfs", "/mnt", "") }},
	"mount-fuse":    {make: mountFuse},
	"mount-nsfs":    {make: mountNamespace},
	"mount-orphan":  {make: mountOrphan},
	"overmounted":   {make: func() error { return onMount(func() error { return mount("tmpfs", "/mnt", "") }) }},
	"detached":      {make: func() error { return onMount(func() error { return unix.Unmount("/mnt", unix.MNT_DETACH) }) }},
	"covered":       {make: covered},
	"mqueue-empty":  {make: func() error { return mount("mqueue", "/mnt", "") }},
	"mount-tmpfs":   {make: func() error { return mount("tmpfs", "/mnt", "") }},
	"mount-cgroup2": {make: func() error { return mount("cgroup2", "/mnt", "") }},
	"mount-sysfs":   {make: func() error { return mount("sysfs", "/mnt", "") }},
	"mount-debugfs": {make: func() error { return mount("debugfs", "/mnt", "") }},
	"mount-binfmt":  {make: func() error { return mount("binfmt_misc", "/mnt", "") }},
	"mount-hugetlb": {make: func() error { return mount("hugetlbfs", "/mnt", "") }},
	"mount-pstore":  {make: func() error { return mount("pstore", "/mnt", "") }},
	"mount-overlay": {make: mountOverlay},
	"mount-autofs":  {make: mountAutofs},
}

func mount(kind, at, data string) error {
	return step("mount "+kind, unix.Mount(kind, at, kind, 0, data))
}

// mountFuse mounts a file system that nobody answers for.
func mountFuse() error {
	if err := device("/dev/fuse", unix.S_IFCHR, 10, 229, unix.O_RDWR); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := mount("fuse", "/mnt", fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		return err
	}
	// Whoever asks what this is waits for ever.
	_, err = unix.Open("/mnt", unix.O_PATH|unix.O_CLOEXEC, 0)
	return step("open", err)
}

func mountAutofs() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_DIRECT|unix.O_CLOEXEC); err != nil {
		return err
	}
	return mount("autofs", "/mnt", fmt.Sprintf("fd=%d,pgrp=%d,minproto=5,maxproto=5,indirect", p[1], unix.Getpgrp()))
}

func mountNamespace() error {
	if err := os.WriteFile("/tmp/ns", nil, 0o600); err != nil {
		return err
	}
	return elsewhere(func(self string) error { return step("bind", unix.Mount(self, "/tmp/ns", "", unix.MS_BIND, "")) })
}

// mountOrphan binds a directory of a file system that is mounted nowhere else.
func mountOrphan() error {
	if err := mount("tmpfs", "/mnt", ""); err != nil {
		return err
	}
	if err := os.Mkdir("/mnt/sub", 0o700); err != nil {
		return err
	}
	if err := unix.Mount("/mnt/sub", "/tmp", "", unix.MS_BIND, ""); err != nil {
		return step("bind", err)
	}
	return unix.Unmount("/mnt", unix.MNT_DETACH)
}

func mountOverlay() error {
	for _, dir := range []string{"/tmp/lower", "/tmp/upper", "/tmp/work"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return mount("overlay", "/mnt", "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")
}

// onMount opens a file on a mount before something is done to it.
func onMount(then func() error) error {
	if err := mount("tmpfs", "/mnt", ""); err != nil {
		return err
	}
	if _, err := create("/mnt/file"); err != nil {
		return err
	}
	return then()
}

// covered opens a file of the root below which something is then mounted.
func covered() error {
	if _, err := create("/mnt/file"); err != nil {
		return err
	}
	return mount("tmpfs", "/mnt", "")
}
