package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxSysctl is what one value may have; the longest are lists of ports.
	maxSysctl = 256 << 10
	// usualSysctl is enough for all but few.
	usualSysctl = 512
	// groupRange holds group ids, which are the host's when the host reads them.
	groupRange = "ipv4/ping_group_range"
)

// sysctlFile is a setting, open: reading hundreds of them takes a frozen
// container 0.4 ms, opening them 3 ms and more.
type sysctlFile struct {
	key string
	fd  int
}

// openSysctls opens all settings of the calling thread's namespace that can be
// read and written, below the directories given, which are themselves below
// /proc/sys/net. They stay those of the namespace, whatever thread reads them.
func openSysctls(under ...string) (files []sysctlFile, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeSysctls(files))
			files = nil
		}
	}()
	for len(under) > 0 {
		dir := under[0]
		under = under[1:]
		entries, err := os.ReadDir(filepath.Join(procSysNet, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		for _, e := range entries {
			key := filepath.Join(dir, e.Name())
			if e.IsDir() {
				under = append(under, key)
				continue
			}
			fd, err := openSysctl(key)
			if err != nil {
				return files, err
			}
			if fd >= 0 {
				files = append(files, sysctlFile{key, fd})
			}
		}
	}
	return files, nil
}

// openSysctl returns -1 for a setting that is not to be recorded: one that
// cannot be read or written, is gone, or only shows the MTU of a link.
func openSysctl(key string) (int, error) {
	if strings.HasPrefix(key, "ipv6/conf/") && strings.HasSuffix(key, "/mtu") {
		return -1, nil
	}
	fd, err := unix.Open(filepath.Join(procSysNet, key), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("open setting %s: %w", key, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(fmt.Errorf("look at setting %s: %w", key, err), unix.Close(fd))
	}
	if st.Mode&0o200 == 0 {
		return -1, unix.Close(fd)
	}
	return fd, nil
}

func closeSysctls(files []sysctlFile) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, unix.Close(f.fd))
	}
	return errors.Join(errs...)
}

// read returns the value, in buf if that is large enough. The kernel makes a
// buffer of the same size, and zeroes it, for every read (proc_sys_call_handler):
// with 64 KiB all of a namespace took three times as long.
func (f sysctlFile) read(buf []byte) ([]byte, error) {
	n, err := unix.Pread(f.fd, buf, 0)
	if err == nil && n == len(buf) {
		buf = make([]byte, maxSysctl)
		if n, err = unix.Pread(f.fd, buf, 0); n == len(buf) {
			err = unix.EFBIG
		}
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(buf[:n]), nil
}

// readSysctls returns the values. One that the kernel does not want to tell (a
// secret that is not set: EIO) or that is gone with its link is left out.
func readSysctls(files []sysctlFile) map[string]string {
	values := make(map[string]string, len(files))
	buf := make([]byte, usualSysctl)
	for _, f := range files {
		if value, err := f.read(buf); err == nil {
			values[f.key] = string(value)
		}
	}
	return values
}

// sameSysctls says quickly whether all values are the usual ones, which they
// mostly are.
func sameSysctls(files []sysctlFile, usual map[string]string) bool {
	buf := make([]byte, usualSysctl)
	for _, f := range files {
		value, err := f.read(buf)
		if err != nil {
			continue
		}
		before, ok := usual[f.key]
		if ok && before != string(value) || !ok && isOfLink(f.key) {
			return false
		}
	}
	return true
}

func isOfLink(key string) bool {
	_, isLink := linkOfSysctl(key)
	return isLink
}

// changedSysctls are those whose values differ from what a container begins
// with: usual, and for a link that the usual namespace does not have, what the
// namespace gives new links.
func changedSysctls(values, usual map[string]string) map[string]string {
	changed := make(map[string]string)
	spread := make(map[string]bool)
	for key, value := range values {
		before, ok := usual[key]
		if of, isLink := linkOfSysctl(key); !ok && isLink {
			if before, ok = values[of.model]; of.ofNeighbours {
				before, ok = usual[of.model]
			}
		}
		if !ok || before == value {
			continue
		}
		changed[key] = value
		for _, name := range spreads(key) {
			spread[name] = true
		}
	}
	// Setting "all" or "default" changes links too, so that the values of all of
	// them are needed, even the usual ones.
	for key, value := range values {
		if of, isLink := linkOfSysctl(key); isLink && spread[of.leaf] {
			changed[key] = value
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return changed
}

// linkSysctl is a setting that each link has.
type linkSysctl struct {
	leaf string // IP version and name
	rank int    // all before default before links
	// model is the key of what new links get. Of neighbours' settings only the
	// host has one; lo has never other than these.
	model        string
	ofNeighbours bool
}

// linkOfSysctl splits keys like ipv4/conf/eth0/rp_filter.
func linkOfSysctl(key string) (linkSysctl, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 || parts[1] != "conf" && parts[1] != "neigh" {
		return linkSysctl{}, false
	}
	s := linkSysctl{leaf: parts[0] + "/" + parts[1] + "/" + parts[3], rank: 3, ofNeighbours: parts[1] == "neigh"}
	model := "default"
	if s.ofNeighbours {
		model = "lo"
	}
	s.model = strings.Join([]string{parts[0], parts[1], model, parts[3]}, "/")
	switch parts[2] {
	case "all":
		s.rank = 1
	case "default":
		s.rank = 2
	}
	return s, true
}

// spreads returns the settings of links that change with this one. Forwarding
// of IPv4 also resets whether redirects are accepted (inet_forward_change).
func spreads(key string) []string {
	s, isLink := linkOfSysctl(key)
	switch {
	case key == "ipv4/ip_forward", key == "ipv4/conf/all/forwarding":
		return []string{"ipv4/conf/forwarding", "ipv4/conf/accept_redirects"}
	case isLink && s.rank < 3:
		return []string{s.leaf}
	}
	return nil
}

// sysctlRank orders settings so that none undoes another: what concerns all
// links before what concerns one.
func sysctlRank(key string) int {
	if key == "ipv4/ip_forward" {
		return -1
	}
	s, _ := linkOfSysctl(key)
	return s.rank
}

// setSysctls sets those of links, or all others, in the calling thread's
// namespace.
func (in Inner) setSysctls(links bool, groups idMap) error {
	keys := slices.Collect(maps.Keys(in.Sysctls))
	slices.SortFunc(keys, func(a, b string) int {
		if order := sysctlRank(a) - sysctlRank(b); order != 0 {
			return order
		}
		return strings.Compare(a, b)
	})
	var errs []error
	for _, key := range keys {
		if (sysctlRank(key) == 3) != links {
			continue
		}
		value := in.Sysctls[key]
		if key == groupRange {
			value = groups.outside(value)
		}
		if _, err := setSysctl(sysctlPath(key), value); err != nil {
			errs = append(errs, fmt.Errorf("set %s to %q: %w", key, value, err))
		}
	}
	return errors.Join(errs...)
}

// checkSysctl refuses keys that lead elsewhere than to a setting of a network
// namespace.
func checkSysctl(key, value string) error {
	if !filepath.IsLocal(key) || filepath.Clean(key) != key || strings.ContainsAny(key, "\x00\n") || strings.Count(key, "/") > 4 {
		return fmt.Errorf("setting %q is not one", key)
	}
	if len(value) > maxSysctl || strings.Contains(value, "\x00") {
		return fmt.Errorf("the value of setting %q is not one", key)
	}
	return nil
}
