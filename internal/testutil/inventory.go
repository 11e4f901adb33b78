package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// item is one thing that tests can leave behind. A shared one may also have
// been made by somebody else on the machine.
type item struct {
	name   string
	shared bool
}

// inventory is a multiset of items.
type inventory []item

// without returns the items of v that w has not, counting repetitions.
func (v inventory) without(w inventory) inventory {
	count := map[item]int{}
	for _, i := range w {
		count[i]++
	}
	var rest inventory
	for _, i := range v {
		if count[i]--; count[i] < 0 {
			rest = append(rest, i)
		}
	}
	return rest
}

func takeInventory() (inventory, error) {
	var all inventory
	for _, list := range []func() (inventory, error){
		descriptors, children, mounts, loops, files, links, routes, namedNetns, tables, cgroups,
	} {
		some, err := list()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func descriptors() (inventory, error) {
	names, err := namesIn("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var v inventory
	for _, name := range names {
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil {
			continue // the one that read the directory
		}
		// The Go runtime's network poller, made when first used.
		if target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]" {
			continue
		}
		v = append(v, item{name: "open descriptor of " + target})
	}
	return v, nil
}

// children lists also those that have ended and nobody has waited for.
func children() (inventory, error) {
	paths, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	var v inventory
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(b)) {
			comm, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				continue
			}
			v = append(v, item{name: "child process " + pid + " " + strings.TrimSpace(string(comm))})
		}
	}
	return v, nil
}

func mounts() (inventory, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var v inventory
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && below(f[4]) {
			v = append(v, item{name: "mount " + f[4]})
		}
	}
	return v, nil
}

func loops() (inventory, error) {
	paths, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var v inventory
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if file := strings.TrimSpace(string(b)); err == nil && below(file) {
			v = append(v, item{name: "loop device " + strings.Split(path, "/")[3] + " on " + file})
		}
	}
	return v, nil
}

func files() (inventory, error) {
	if base == diskTemp {
		return nil, nil
	}
	names, err := namesIn(base)
	return items("temporary ", names, false), err
}

var (
	linkName   = regexp.MustCompile(`^(ctctl|c[tr][0-9a-f]{12}[1-9a-z]?$)`)
	netnsName  = regexp.MustCompile(`^ct`)
	tableName  = regexp.MustCompile(`^(ctctl|CRIU-)`)
	cgroupName = regexp.MustCompile(`^ctctl-`)
)

func links() (inventory, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return items("link ", matching(names, linkName), true), nil
}

// routeProtocol marks the routes that ctctl makes. Those through a link go with
// it; what swallows packets does not.
const routeProtocol = 199

func routes() (inventory, error) {
	b, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_UNSPEC)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE || len(m.Data) < syscall.SizeofRtMsg || m.Data[5] != routeProtocol {
			continue
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if ip, ok := netip.AddrFromSlice(a.Value); ok && a.Attr.Type == syscall.RTA_DST {
				names = append(names, fmt.Sprintf("%s/%d", ip, m.Data[1]))
			}
		}
	}
	return items("route to ", names, true), nil
}

func namedNetns() (inventory, error) {
	names, err := namesIn("/run/netns")
	return items("network namespace ", matching(names, netnsName), true), err
}

func tables() (inventory, error) {
	names, err := nftTables()
	return items("nft table ", matching(names, tableName), true), err
}

// cgroups looks where ctctl makes them, directly below every hierarchy.
func cgroups() (inventory, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	var v inventory
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, " - cgroup") {
			continue
		}
		top := strings.Fields(line)[4]
		names, err := namesIn(top)
		if err != nil {
			return nil, err
		}
		v = append(v, items("cgroup "+top+"/", matching(names, cgroupName), true)...)
	}
	return v, nil
}

func below(path string) bool {
	return base != diskTemp && strings.HasPrefix(path, base+"/")
}

// namesIn returns the entries of a directory, none when it is absent.
func namesIn(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func matching(names []string, re *regexp.Regexp) []string {
	var some []string
	for _, name := range names {
		if re.MatchString(name) {
			some = append(some, name)
		}
	}
	return some
}

func items(prefix string, names []string, shared bool) inventory {
	var v inventory
	for _, name := range names {
		v = append(v, item{prefix + name, shared})
	}
	return v
}
