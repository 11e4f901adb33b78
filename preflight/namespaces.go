package preflight

import (
	"fmt"
	"strings"
)

// namespaceKinds are the links of /proc/PID/ns that CRIU wants to be the same in
// the whole tree. Mount namespaces may be many; of network namespaces there may
// be only one as long as it is not CRIU that makes it.
var namespaceKinds = []string{"uts", "ipc", "pid", "user", "cgroup", "time", "net", "mnt"}

// namespaces compares those of every process with the first one's.
func (x *examination) namespaces(r *reader) error {
	own, err := readNamespaces(r, x.root)
	if vanished(err) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	x.own = own
	for _, p := range x.list {
		if p.ended() {
			continue
		}
		links, err := readNamespaces(r, p)
		if vanished(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := x.compareNamespaces(r, p, links); err != nil {
			return err
		}
	}
	return nil
}

func readNamespaces(r *reader, p *process) (map[string]string, error) {
	links := make(map[string]string, len(namespaceKinds)+1)
	for _, kind := range append([]string{"time_for_children"}, namespaceKinds...) {
		link, err := r.readlink(p.path + "/ns/" + kind)
		if err != nil && kind != "time" && kind != "time_for_children" { // since Linux 5.6
			return nil, err
		}
		links[kind] = link
	}
	return links, nil
}

func (x *examination) compareNamespaces(r *reader, p *process, links map[string]string) error {
	p.mnt = links["mnt"]
	for _, kind := range namespaceKinds {
		x.spaces[links[kind]] = true
		switch {
		case kind == "mnt":
			if err := x.mounts.load(r, p); err != nil && !vanished(err) {
				return err
			}
		case links[kind] == x.own[kind]:
		case kind == "net":
			x.add(r, p, -1, "nested-net", "nested-net", "it is in a network namespace of its own", nil)
		default:
			x.addNested(r, p, kind)
		}
	}
	if links["time_for_children"] != links["time"] && links["time"] == x.own["time"] {
		x.addNested(r, p, "time")
	}
	return nil
}

func (x *examination) addNested(r *reader, p *process, kind string) {
	what := fmt.Sprintf("it is in a %s namespace of its own", strings.ToUpper(kind))
	if kind == "time" {
		what = "it or its children are in a time namespace of their own"
	}
	x.add(r, p, -1, "nested-"+kind, "nested-namespace", what, map[string]string{"kind": kind})
}

// namespaceLink tells whether a descriptor's link is that of a namespace, such as
// "net:[4026531840]".
func namespaceLink(link string) bool {
	kind, rest, ok := strings.Cut(link, ":[")
	if !ok || !strings.HasSuffix(rest, "]") {
		return false
	}
	switch kind {
	case "uts", "ipc", "pid", "user", "cgroup", "time", "net", "mnt":
		return true
	}
	return false
}
