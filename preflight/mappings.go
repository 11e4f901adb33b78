package preflight

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is one line of proc_pid_maps(5).
type mapping struct {
	start, end uint64
	shared     bool
	dev        string
	inode      string
	path       string
}

// lookAtMappings looks at what a process has mapped.
func (x *examination) lookAtMappings(r *reader, p *process) error {
	b, err := r.read(p.path+"/maps", mostMaps)
	if err != nil {
		return err
	}
	list := parseMaps(b)
	x.mu.Lock()
	x.mappings += len(list)
	x.mu.Unlock()
	for _, m := range list {
		x.mapping(r, p, m)
	}
	return nil
}

func (x *examination) mapping(r *reader, p *process, m mapping) {
	switch {
	case m.path == "[uprobes]":
		x.add(r, p, -1, "uprobe", "mapping-uprobe", "uprobe of a tracing tool", nil)
	case m.inode == "0":
	case strings.HasPrefix(m.path, "anon_inode:"):
		x.unsaved(r, p, -1, "mapping", strings.TrimPrefix(m.path, "anon_inode:"), Mappings)
	case isUnnamed(m.path):
		if m.shared {
			x.mu.Lock()
			x.shared[m.dev+" "+m.inode] = max(x.shared[m.dev+" "+m.inode], int64(m.end-m.start))
			x.mu.Unlock()
		}
	case strings.HasPrefix(m.path, "/"):
		x.mappedFile(r, p, m)
	}
}

// mappedFile looks at a file once for each mount namespace.
func (x *examination) mappedFile(r *reader, p *process, m mapping) {
	key := p.mnt + m.dev + " " + m.inode
	x.mu.Lock()
	known := x.mapped[key]
	before := len(x.found) + len(x.doubts)
	x.mu.Unlock()
	if known {
		return
	}
	path := p.path + "/map_files/" + strconv.FormatUint(m.start, 16) + "-" + strconv.FormatUint(m.end, 16)
	st, err := stat(path)
	if err != nil {
		return // unmapped, or gone
	}
	switch kind := st.Mode & unix.S_IFMT; {
	case kind == unix.S_IFREG:
		x.plain(r, p, -1, st, x.mountOf(r, p, st.Mnt_id), path, m.path)
	case kind == unix.S_IFCHR && st.Rdev_major == majorMemory && st.Rdev_minor == 5: // /dev/zero
	default:
		x.add(r, p, -1, "mapped-device", "mapping", "mapping of the device "+printable(m.path), nil)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.found)+len(x.doubts) == before {
		x.mapped[key] = true // what is wrong is said of each process
	}
}

// parseMaps reads the mappings that are of something.
func parseMaps(b []byte) []mapping {
	var list []mapping
	last := ""
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		m, ok := parseMapping(line)
		if !ok || m.inode == "0" && m.path != "[uprobes]" {
			continue
		}
		// The parts of a program follow one another.
		if same := m.dev + " " + m.inode; same != last || m.shared {
			list = append(list, m)
			last = same
		}
	}
	return list
}

// parseMapping reads "start-end perms offset dev inode   path".
func parseMapping(line []byte) (m mapping, ok bool) {
	var word [5][]byte
	rest := line
	for i := range word {
		word[i], rest, ok = bytes.Cut(rest, []byte(" "))
		if !ok && i < 4 {
			return m, false
		}
	}
	from, to, _ := bytes.Cut(word[0], []byte("-"))
	var err1, err2 error
	m.start, err1 = strconv.ParseUint(string(from), 16, 64)
	m.end, err2 = strconv.ParseUint(string(to), 16, 64)
	if err1 != nil || err2 != nil || m.end < m.start || len(word[1]) != 4 {
		return m, false
	}
	m.shared = word[1][3] == 's'
	m.dev, m.inode, m.path = string(word[3]), string(word[4]), string(bytes.TrimLeft(rest, " "))
	return m, true
}
