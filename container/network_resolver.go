package container

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Where the host's name servers stand. The second is of systemd-resolved, where the
// first names only its stub, 127.0.0.53: see systemd-resolved.service(8),
// "/etc/resolv.conf".
var resolverFiles = [...]string{"etc/resolv.conf", "run/systemd/resolve/resolv.conf"}

// hostResolver is the host's resolv.conf(5) without name servers that only the host
// itself can ask, those of its loopback addresses; "" when there is none. Where it
// names no other, systemd-resolved may know which ones it asks itself.
func hostResolver() string { return resolverBelow("/") }

func resolverBelow(root string) string {
	var first string
	for _, name := range resolverFiles {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue // a host without
		}
		text, servers := withoutLoopback(string(b))
		if servers {
			return text
		}
		if first == "" {
			first = text
		}
	}
	return first
}

// withoutLoopback says whether a name server is left.
func withoutLoopback(text string) (out string, servers bool) {
	kept := slices.Collect(strings.Lines(text))
	kept = slices.DeleteFunc(kept, func(line string) bool {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			return false
		}
		a, err := netip.ParseAddr(f[1])
		if err == nil && a.Unmap().IsLoopback() {
			return true
		}
		servers = true
		return false
	})
	return strings.Join(kept, ""), servers
}
