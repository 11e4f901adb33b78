package preflight

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// madeAgain are the file systems that CRIU can mount anew (filesystems.c). What is
// missing there is "unsupported" unless it is the root, or is named as external.
var madeAgain = map[string]bool{
	"proc": true, "sysfs": true, "devtmpfs": true, "binfmt_misc": true, "tmpfs": true, "devpts": true, "simfs": true,
	"pstore": true, "mqueue": true, "securityfs": true, "fusectl": true, "debugfs": true, "tracefs": true,
	"cgroup": true, "cgroup2": true, "aufs": true, "autofs": true,
}

// judged are those of them that are looked into.
var judged = map[string]bool{"pstore": true, "mqueue": true, "autofs": true}

// checkMounts looks at every mount. It returns how many tmpfs there are and how
// much is in them.
func (x *examination) checkMounts(r *reader) (tmpfs int, bytes int64) {
	seen := map[string]bool{}
	for _, list := range x.mounts.bySpace {
		for _, m := range list {
			x.checkMount(r, m, seen)
			if m.fstype == "tmpfs" && m.root == "/" && !seen["tmpfs "+m.dev] {
				seen["tmpfs "+m.dev] = true
				tmpfs++
				bytes += x.usedBytes(m)
			}
		}
	}
	return tmpfs, bytes
}

// checkMount follows CRIU's validate_mounts.
func (x *examination) checkMount(r *reader, m *mount, seen map[string]bool) {
	whole := m.root == "/"
	ordinary := whole && madeAgain[m.fstype] && !judged[m.fstype]
	if m.up == nil || ordinary || x.external(m) || !whole && x.onRoot(m) {
		return
	}
	code := ""
	words := map[string]string{"at": printable(m.point)}
	switch {
	case m.foreign() && m.fstype != "9p" && !strings.HasPrefix(m.fstype, "nfs"):
		code = "fuse"
	case whole && m.fstype == "overlay":
		code = "overlay"
	case whole && m.fstype == "autofs":
		code = "autofs"
	case whole && (m.fstype == "mqueue" || m.fstype == "pstore"):
		if entry := x.firstEntry(m); entry != "" {
			code, words["entry"] = m.fstype, entry
		}
	case whole && !madeAgain[m.fstype] && !x.onRoot(m):
		code = "file-system"
	case !whole && !x.reachable(m):
		code = "orphan"
	}
	if code == "" || seen[code+m.dev+m.root+m.point] {
		return
	}
	seen[code+m.dev+m.root+m.point] = true // private mount namespaces have copies
	what := fmt.Sprintf("%s mounted on %s", printable(m.fstype), printable(m.point))
	if !whole {
		what += fmt.Sprintf(" (its %s)", printable(m.root))
	}
	f := x.finding(r, nil, -1, code, code, what, words)
	if m.by != x.root {
		f.HostPID, f.PID, f.Command = m.by.pid, m.by.inner, m.by.comm
	}
	x.found = append(x.found, f)
}

// external says that a mount, or one of the same directory, is named to CRIU.
func (x *examination) external(m *mount) bool {
	if slices.Contains(x.t.External, m.point) {
		return true
	}
	return x.any(func(t *mount) bool {
		return t.dev == m.dev && below(m.root, t.root) && slices.Contains(x.t.External, t.point)
	})
}

// onRoot says that a mount shows a part of the root's file system.
func (x *examination) onRoot(m *mount) bool {
	return x.any(func(t *mount) bool { return t.up == nil && t.dev == m.dev && below(m.root, t.root) })
}

// reachable says that CRIU finds the directory that is bound from a mount that it
// makes. The paths of cgroup mounts are relative to the reader's own and tell
// nothing.
func (x *examination) reachable(m *mount) bool {
	if m.fstype == "cgroup" || m.fstype == "cgroup2" {
		return true
	}
	return x.any(func(t *mount) bool { return t.dev == m.dev && t.root == "/" })
}

func (x *examination) any(is func(*mount) bool) bool {
	for _, m := range x.mounts.byID {
		if is(m) {
			return true
		}
	}
	return false
}

// openMount opens a mount's directory without being led elsewhere, and without
// asking a program that may not answer.
func (x *examination) openMount(m *mount, flags uint64) (int, error) {
	if x.mounts.fuse || m.covered() {
		return -1, unix.EOPNOTSUPP
	}
	root, err := open(m.by.path+"/root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, m.point, &unix.OpenHow{
		Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// usedBytes is how much a tmpfs holds; 0 if that can't be found out.
func (x *examination) usedBytes(m *mount) int64 {
	fd, err := x.openMount(m, unix.O_PATH)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return 0
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// firstEntry is a name in a directory; "" if there is none.
func (x *examination) firstEntry(m *mount) string {
	fd, err := x.openMount(m, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	list, err := names(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || len(list) == 0 {
		return ""
	}
	return printable(list[0])
}
