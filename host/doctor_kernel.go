package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// Kernels and what came with them.
var (
	kernelNeeded = [2]int{5, 15} // id-mapped mounts of btrfs; mount_setattr is of 5.12, time namespaces of 5.6
	kernelWanted = [2]int{6, 7}  // simple quotas of btrfs
)

// neededCaps are those that containers are made and checkpointed with.
var neededCaps = map[int]string{
	unix.CAP_SYS_ADMIN: "CAP_SYS_ADMIN", unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_SYS_PTRACE: "CAP_SYS_PTRACE",
	unix.CAP_DAC_OVERRIDE: "CAP_DAC_OVERRIDE", unix.CAP_CHOWN: "CAP_CHOWN", unix.CAP_FOWNER: "CAP_FOWNER",
	unix.CAP_SETUID: "CAP_SETUID", unix.CAP_SETGID: "CAP_SETGID", unix.CAP_SETPCAP: "CAP_SETPCAP",
	unix.CAP_KILL: "CAP_KILL", unix.CAP_MKNOD: "CAP_MKNOD", unix.CAP_SYS_CHROOT: "CAP_SYS_CHROOT",
}

const realMachine = "run ctctl on the machine itself, or give the outer container its capabilities"

func effectiveRoot() bool { return os.Geteuid() == 0 }

func (x *examination) privileges(context.Context) {
	if !x.root {
		x.add(AreaPrivileges, Fail, "sudo ctctl doctor", "not root (user %d): containers need it", os.Geteuid())
		return
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		x.add(AreaPrivileges, Fail, "mount -t proc proc /proc", "/proc can't be read: %v", err)
		return
	}
	have, err := effectiveCaps(string(status))
	if err != nil {
		x.add(AreaPrivileges, Fail, realMachine, "%v", err)
		return
	}
	var missing []string
	for bit, name := range neededCaps {
		if have&(1<<bit) == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		x.add(AreaPrivileges, Fail, realMachine, "root lacks %s", listed(missing))
	} else {
		x.pass(AreaPrivileges, "root, with the capabilities that containers need")
	}
	if have&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		x.add(AreaPrivileges, Warn, realMachine, "root lacks CAP_SYS_RESOURCE: hard resource limits can't be raised, "+
			"and containers made with --userns=host can't be checkpointed when several users run in them")
	}
}

func effectiveCaps(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, errors.New("/proc/self/status has no CapEff line")
}

func (x *examination) kernel(context.Context) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		x.add(AreaKernel, Fail, realMachine, "uname: %v", err)
		return
	}
	x.kernelVersion(unix.ByteSliceToString(u.Release[:]))
	if tracksMemory() {
		x.pass(AreaKernel, "the kernel tracks changed memory (soft-dirty)")
	} else {
		x.pass(AreaKernel, "the kernel does not track changed memory (soft-dirty); nothing here needs it so far")
	}
}

func (x *examination) kernelVersion(release string) {
	cure := newerKernel()
	v, ok := parseRelease(release)
	switch {
	case !ok:
		x.add(AreaKernel, Warn, cure, "Linux %q: no version can be read from that", release)
	case olderKernel(v, kernelNeeded):
		x.add(AreaKernel, Fail, cure, "Linux %s: %d.%d is needed, for id-mapped mounts of btrfs", release, kernelNeeded[0], kernelNeeded[1])
	case olderKernel(v, kernelWanted):
		x.add(AreaKernel, Warn, cure, "Linux %s: disk limits need %d.%d (simple quotas of btrfs)", release, kernelWanted[0], kernelWanted[1])
	default:
		x.pass(AreaKernel, "Linux %s", release)
	}
}

// newerKernel gets the latest that there is for Debian 12; Debian 13's is new enough.
func newerKernel() string {
	return "sudo apt-get install -t bookworm-backports linux-image-" + debianArch() + ", and reboot"
}

func parseRelease(release string) (v [2]int, ok bool) {
	n, err := fmt.Sscanf(release, "%d.%d", &v[0], &v[1])
	return v, err == nil && n == 2
}

func olderKernel(v, than [2]int) bool {
	return v[0] < than[0] || v[0] == than[0] && v[1] < than[1]
}

// tracksMemory looks whether a page that was just written has the soft-dirty bit,
// number 55 in /proc/self/pagemap (proc_pid_pagemap(5)).
func tracksMemory() bool {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Munmap(page) }() // ours, just made
	page[0] = 1
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return false
	}
	defer f.Close()
	entry := make([]byte, 8)
	if _, err := f.ReadAt(entry, int64(addressOf(page))/int64(os.Getpagesize())*8); err != nil {
		return false
	}
	return entry[6]&0x80 != 0
}

// tryIDs is a range as containers get them, above all that are in use.
var tryIDs = runc.IDRange{Base: 0x7FFD0000, Size: 65536}

func (x *examination) userNamespaces(context.Context) {
	restricted := sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1"
	lift := "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
	if !x.needRoot(AreaNamespaces, "user namespaces") {
		return
	}
	err := runc.TryUserNamespace(tryIDs)
	switch {
	case err != nil && sysctl("user/max_user_namespaces") == "0":
		x.add(AreaNamespaces, Fail, "sysctl -w user.max_user_namespaces=15000", "user namespaces are turned off: %v", err)
	case err != nil && restricted:
		x.add(AreaNamespaces, Fail, lift, "AppArmor refuses user namespaces: %v", err)
	case err != nil:
		x.add(AreaNamespaces, Fail, realMachine, "no user namespace with a range of ids can be made: %v", err)
	case restricted:
		x.add(AreaNamespaces, Warn, lift, "user namespaces work, but AppArmor restricts those of processes without privileges: "+
			"programs in containers that make their own may fail")
	default:
		x.pass(AreaNamespaces, "user namespaces, with a range of %d ids", tryIDs.Size)
	}
}

func (x *examination) otherNamespaces(context.Context) {
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		x.add(AreaNamespaces, Fail, newerKernel(), "this kernel has no time namespaces (CONFIG_TIME_NS): a restored process would see its clocks jump")
	} else {
		x.pass(AreaNamespaces, "time namespaces")
	}
	if !x.needRoot(AreaNamespaces, "id-mapped mounts") {
		return
	}
	dir := x.volumesHome()
	if err := runc.TryIDMap(dir, tryIDs); err != nil {
		x.add(AreaNamespaces, Fail, "ctctl --state-root DIR, with DIR on btrfs, ext4 or xfs; or create with --userns=host",
			"%s can't be mounted id-mapped: %v", dir, err)
		return
	}
	x.pass(AreaNamespaces, "id-mapped mounts, tried on %s", dir)
}

// volumesHome is the nearest directory that there is to where volumes are.
func (x *examination) volumesHome() string {
	return nearest(filepath.Join(x.o.StateRoot, "pool", "volumes"))
}

func (x *examination) seccomp(context.Context) {
	cure := "make build, which has -tags seccomp"
	switch {
	case !runc.SeccompBuiltIn():
		x.add(AreaSeccomp, Fail, cure, "this ctctl was built without seccomp: it starts no containers")
	case sysctl("kernel/seccomp/actions_avail") == "":
		x.add(AreaSeccomp, Fail, newerKernel(), "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)")
	default:
		x.pass(AreaSeccomp, "built in, and in the kernel")
	}
}

func (x *examination) cgroups(ctx context.Context) {
	l, err := quota.Probe()
	if err != nil {
		x.add(AreaCgroups, Fail, "mount -t cgroup2 cgroup2 /sys/fs/cgroup", "%v", err)
		return
	}
	x.pass(AreaCgroups, "layout %s; controllers: %s", l.Mode, listed(l.Controllers))
	for _, c := range l.Missing() {
		if c == "freezer" {
			x.add(AreaCgroups, Fail, "mount -t cgroup2 cgroup2 /sys/fs/cgroup", "no freezer: containers can't be checkpointed or paused")
			continue
		}
		x.add(AreaCgroups, Warn, "boot with cgroup_enable="+c, "no %s controller: limits on %s can't be set", c, controlled[c])
	}
	if l.Unified != "" && x.needRoot(AreaCgroups, "the freezer") {
		x.freezer(ctx)
	}
}

var controlled = map[string]string{"cpu": "processor time", "memory": "memory", "pids": "the number of processes"}

// freezer freezes a cgroup that holds nothing.
func (x *examination) freezer(ctx context.Context) {
	err := func() (err error) {
		g, err := quota.Open(fmt.Sprintf("/ctctl-doctor-%d", os.Getpid()))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Remove(context.WithoutCancel(ctx))) }()
		if err := g.Delegate(0, 0); err != nil {
			return err
		}
		return errors.Join(g.Freeze(ctx), g.Thaw())
	}()
	if err != nil {
		x.add(AreaCgroups, Fail, realMachine, "a new cgroup can't be frozen: %v", err)
		return
	}
	x.pass(AreaCgroups, "the freezer works")
}
