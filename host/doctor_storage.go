package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	withoutBtrfs = "; or, before the first container: CTCTL_STORAGE=dir (slow copies, no disk limits)"
	// spaceNeeded is what one small template and container take, spaceWanted what
	// a few of them do.
	spaceNeeded = 1 << 30
	spaceWanted = 5 << 30
)

func (x *examination) storage(context.Context) {
	driver, ok := x.driver()
	if !ok {
		return
	}
	if driver == "dir" {
		x.add(AreaStorage, Warn, "a new state root, without CTCTL_STORAGE=dir", "plain directories: snapshots copy every file, disk limits can't be set")
		return
	}
	kernel := x.btrfsInKernel()
	if fsType(nearest(x.o.StateRoot)) == unix.BTRFS_SUPER_MAGIC {
		x.pass(AreaStorage, "the state root %s is on btrfs", x.o.StateRoot)
		return
	}
	if !kernel {
		return
	}
	x.tool("mkfs.btrfs", "btrfs-progs", Fail, AreaStorage, "no pool can be made")
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		x.add(AreaStorage, Fail, "modprobe loop"+withoutBtrfs, "no loop devices, in which a pool file is mounted: %v", err)
	} else {
		x.pass(AreaStorage, "loop devices, for the pool file %s", filepath.Join(x.o.StateRoot, "pool.img"))
	}
}

// driver is the one the host was set up with, or would be.
func (x *examination) driver() (name string, ok bool) {
	var s Settings
	path := filepath.Join(x.o.StateRoot, "host.json")
	err := settingsSchema.Read(path, &s)
	switch {
	case err == nil:
		return s.Storage, true
	case errors.Is(err, fs.ErrNotExist) && os.Getenv("CTCTL_STORAGE") != "":
		return os.Getenv("CTCTL_STORAGE"), true
	case errors.Is(err, fs.ErrNotExist):
		return "btrfs", true
	case errors.Is(err, fs.ErrPermission) && !x.needRoot(AreaStorage, path):
		return "", false
	}
	x.add(AreaStorage, Fail, "edit "+path+" (docs/state.md describes it)", "%v", err)
	return "", false
}

func (x *examination) btrfsInKernel() bool {
	loaded, module := knownFileSystem("btrfs"), moduleThere("btrfs")
	if !loaded && !module {
		x.add(AreaStorage, Fail, "modprobe btrfs"+withoutBtrfs, "this kernel has no btrfs")
		return false
	}
	switch _, err := os.Stat("/sys/fs/btrfs/features/simple_quota"); {
	case !loaded:
		x.pass(AreaStorage, "btrfs is a module that is loaded when it is needed")
	case err != nil:
		x.add(AreaStorage, Warn, "a kernel of 6.7 or later", "btrfs, but without simple quotas: disk limits can't be set")
	default:
		x.pass(AreaStorage, "btrfs with simple quotas")
	}
	return true
}

func knownFileSystem(name string) bool {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
			return true
		}
	}
	return false
}

// moduleThere looks for a module that can still be loaded.
func moduleThere(name string) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join("/lib/modules", unix.ByteSliceToString(u.Release[:]), "modules.dep"))
	return err == nil && strings.Contains(string(b), "/"+name+".ko")
}

func (x *examination) space(context.Context) {
	dir := nearest(x.o.StateRoot)
	cure := "ctctl --state-root DIR, with DIR on a larger file system"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		x.add(AreaStorage, Fail, cure, "statfs %s: %v", dir, err)
		return
	}
	free := int64(st.Bavail) * st.Bsize
	_, err := os.Stat(filepath.Join(x.o.StateRoot, "pool.img"))
	switch has := float64(free) / (1 << 30); {
	case free < spaceNeeded && err != nil:
		x.add(AreaStorage, Fail, cure, "%.1f GiB free in %s: a template and a container need 1 GiB", has, dir)
	case free < spaceWanted:
		x.add(AreaStorage, Warn, cure, "only %.1f GiB free in %s; memory images of snapshots need it too", has, dir)
	default:
		x.pass(AreaStorage, "%.1f GiB free in %s", has, dir)
	}
}

func (x *examination) tools(context.Context) {
	x.tool("mmdebstrap", "mmdebstrap", Warn, AreaTools, "ctctl template build can't build templates (import works)")
	if _, err := os.Stat("/usr/share/keyrings/debian-archive-keyring.gpg"); err != nil {
		x.add(AreaTools, Warn, "sudo apt-get install debian-archive-keyring", "Debian's archive keys are missing: ctctl template build can't verify packages")
	}
}

// tool looks for a program, also where root's PATH may not.
func (x *examination) tool(program, pkg string, missing Result, area, consequence string) {
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin", "/sbin")
	for _, dir := range dirs {
		if p, err := exec.LookPath(filepath.Join(dir, program)); err == nil && filepath.IsAbs(p) {
			x.pass(area, "%s", p)
			return
		}
	}
	x.add(area, missing, "sudo apt-get install "+pkg, "%s is missing: %s", program, consequence)
}
