package host

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/ctctl/ctctl/netns"
	"golang.org/x/sys/unix"
)

func (x *examination) network(context.Context) {
	if !x.needRoot(AreaNetwork, "veth and nf_tables") {
		return
	}
	if err := netns.TryVeth(); err != nil {
		x.add(AreaNetwork, Fail, "modprobe veth", "no veth pair can be made: %v", err)
	} else {
		x.pass(AreaNetwork, "veth pairs")
	}
	if err := netns.TryFilter(); err != nil {
		x.add(AreaNetwork, Fail, "modprobe -a nf_tables nft_masq nft_chain_nat",
			"nf_tables refuses what masquerading, and CRIU for holding connections, need: %v", err)
	} else {
		x.pass(AreaNetwork, "nf_tables, with masquerading")
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		x.add(AreaNetwork, Warn, "boot without ipv6.disable=1", "no IPv6: containers get IPv4 addresses only, --ip auto fails")
	}
}

// runRoot: what is there must vanish with the processes that it speaks of, and a
// container's root, which is an ordinary user of the host, must reach its
// root directory there.
func (x *examination) runRoot(context.Context) {
	dir := nearest(x.o.RunRoot)
	if t := fsType(dir); t == unix.TMPFS_MAGIC || t == unix.RAMFS_MAGIC {
		x.pass(AreaRunRoot, "%s is on a tmpfs", x.o.RunRoot)
	} else {
		x.add(AreaRunRoot, Warn, "mkdir -p "+x.o.RunRoot+" && mount -t tmpfs -o mode=0711,nosuid,nodev tmpfs "+x.o.RunRoot+
			" (while no container runs; a line in /etc/fstab for the next boot)",
			"%s is not on a tmpfs: a reboot is noticed all the same, by the boot id, but what lies there stays until each container is used again", x.o.RunRoot)
	}
	if shut := closedDirectories(x.o.RunRoot); len(shut) > 0 {
		x.add(AreaRunRoot, Fail, "chmod o+x "+strings.Join(shut, " "),
			"the way to %s is closed to others at %s: a container's root could not reach its root directory", x.o.RunRoot, listed(shut))
	} else {
		x.pass(AreaRunRoot, "the way to %s is open", x.o.RunRoot)
	}
}

// closedDirectories are those on the way to path, itself included, that others
// may not pass.
func closedDirectories(path string) (shut []string) {
	for dir := path; ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err == nil && fi.IsDir() && fi.Mode().Perm()&0o001 == 0 {
			shut = append(shut, dir)
		}
		if dir == filepath.Dir(dir) {
			slices.Reverse(shut)
			return shut
		}
	}
}

// nearest is path, or the nearest directory above it that exists.
func nearest(path string) string {
	for {
		if fi, err := os.Stat(path); err == nil && fi.IsDir() {
			return path
		}
		up := filepath.Dir(path)
		if up == path {
			return path
		}
		path = up
	}
}

func fsType(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0
	}
	return int64(st.Type) // narrower on some architectures
}

func writable(dir string) error { return unix.Access(dir, unix.W_OK) }

// sysctl reads a setting of the kernel; "" when there is none.
func sysctl(name string) string {
	b, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func listed(words []string) string {
	words = slices.Sorted(slices.Values(words))
	return strings.Join(words, ", ")
}

// debianArch is Debian's name of the architecture, for package names.
func debianArch() string {
	if a, ok := map[string]string{"386": "686-pae", "arm": "armmp", "ppc64le": "powerpc64le"}[runtime.GOARCH]; ok {
		return a
	}
	return runtime.GOARCH
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
