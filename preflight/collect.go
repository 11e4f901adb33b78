package preflight

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// collect finds the tree, and what is in the cgroup beside it.
func (x *examination) collect(r *reader) error {
	queue := []int{x.t.Init}
	for len(queue) > 0 {
		pid := queue[0]
		queue = queue[1:]
		if x.tree[pid] != nil {
			continue
		}
		p, children, err := x.load(r, pid)
		if vanished(err) {
			continue
		}
		if err != nil {
			return err
		}
		if x.depth == 0 {
			x.depth = len(p.pids)
		}
		x.enter(p)
		queue = append(queue, children...)
	}
	x.root = x.tree[x.t.Init]
	if x.root == nil || x.root.ended() {
		return ErrGone
	}
	b, err := r.read(x.root.path+"/cgroup", mostStatus)
	if err != nil && !vanished(err) {
		return err
	}
	x.base = strings.TrimSuffix(cgroupPath(b), "/init.scope")
	for _, p := range x.list {
		x.checkProcess(r, p)
		for _, t := range append(p.others, p) {
			x.checkThread(r, p, t)
		}
	}
	if x.t.PIDs == nil {
		return nil
	}
	return x.compare(r)
}

// enter takes a process into the tree.
func (x *examination) enter(p *process) {
	p.inner = at(p.pids, x.depth)
	x.tree[p.pid] = p
	x.list = append(x.list, p)
}

// load reads a process with its threads and lists its children.
func (x *examination) load(r *reader, pid int) (p *process, children []int, err error) {
	dir := "/proc/" + strconv.Itoa(pid)
	p, err = readProcess(r, dir)
	if err != nil {
		return nil, nil, err
	}
	tids, err := numbers(dir + "/task")
	if err != nil {
		return nil, nil, err
	}
	x.threads += len(tids)
	for _, tid := range tids {
		task := dir + "/task/" + strconv.Itoa(tid)
		if tid != pid {
			t, err := readProcess(r, task)
			if err == nil {
				p.others = append(p.others, t)
			} else if !vanished(err) {
				return nil, nil, err
			}
		}
		b, err := r.read(task+"/children", mostList)
		if err != nil && !vanished(err) {
			return nil, nil, err
		}
		for _, word := range bytes.Fields(b) {
			if n := number(word); n > 0 {
				children = append(children, n)
			}
		}
	}
	return p, children, nil
}

func readProcess(r *reader, dir string) (*process, error) {
	b, err := r.read(dir+"/status", mostStatus)
	if err != nil {
		return nil, err
	}
	p := parseStatus(b)
	p.path = dir
	return &p, nil
}

// compare tells what was started from outside, and what has left the cgroup.
func (x *examination) compare(r *reader) error {
	members := map[int]bool{}
	for range 2 { // what was forked while the tree was walked is in the second list
		pids, err := x.t.PIDs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if !members[pid] {
				members[pid] = true
				x.placeMember(r, pid)
			}
		}
	}
	for _, p := range x.list {
		if !members[p.pid] && !p.ended() {
			f := x.finding(r, p, -1, "other-cgroup", "other-cgroup", "it is in the tree but not in the container's cgroup", nil)
			x.doubtful(f, func(r *reader) bool { return x.notMember(r, p) })
		}
	}
	for _, p := range x.strays {
		if !p.ended() {
			x.add(r, p, -1, "exec-session", "exec-session", "command run by exec, or its child", nil)
		}
	}
	return nil
}

// notMember tells whether a process lives and is not in the cgroup.
func (x *examination) notMember(r *reader, p *process) bool {
	pids, err := x.t.PIDs()
	if err != nil || slices.Contains(pids, p.pid) {
		return false
	}
	now, err := readProcess(r, p.path)
	return err == nil && !now.ended()
}

// placeMember finds out where a member of the cgroup belongs. One that is not in
// the tree may have been given to init only just now, when its parent ended.
func (x *examination) placeMember(r *reader, pid int) {
	if x.tree[pid] != nil {
		return
	}
	p, err := readProcess(r, "/proc/"+strconv.Itoa(pid))
	if err != nil {
		return // it has ended
	}
	for up, n := p.parent, 0; up > 1 && n < mostAncestors; n++ {
		if x.tree[up] != nil {
			x.enter(p)
			x.checkProcess(r, p)
			x.checkThread(r, p, p)
			return
		}
		parent, err := readProcess(r, "/proc/"+strconv.Itoa(up))
		if err != nil {
			break
		}
		up = parent.parent
	}
	p.inner = at(p.pids, x.depth)
	x.strays = append(x.strays, p)
	x.checkThread(r, p, p)
}

// mostAncestors bounds the way up to init.
const mostAncestors = 1000

// checkProcess looks at what a process's status tells.
func (x *examination) checkProcess(r *reader, p *process) {
	switch {
	case p.ended():
		if p.threads > 1 {
			x.doubtful(x.finding(r, p, -1, "leader-ended", "leader-ended", "its first thread has ended, others go on", nil),
				func(r *reader) bool {
					q, err := readProcess(r, p.path)
					return err == nil && q.ended() && q.threads > 1 && !dying(r, p.path)
				})
		}
		return
	case at(p.session, x.depth) == 0:
		x.add(r, p, -1, "foreign-leader", "foreign-leader", "its session began outside the container", nil)
	case p.state == 'T' && x.t.FreezerV1:
		x.add(r, p, -1, "stopped", "stopped", "it is stopped by a signal or job control", nil)
	}
}

// checkThread looks at what may be otherwise in each thread.
func (x *examination) checkThread(r *reader, p, t *process) {
	if t.tracer > 0 {
		by := "outside"
		if q, err := readProcess(r, "/proc/"+strconv.Itoa(t.tracer)); err == nil {
			by = q.comm
		}
		what := fmt.Sprintf("it is traced by process %d (%s)", t.tracer, by)
		x.add(r, p, -1, "traced", "traced", what, map[string]string{"tracer": strconv.Itoa(t.tracer)})
	}
	if t.state == 'D' && !x.t.Paused {
		dir := t.path
		x.doubtful(x.finding(r, p, -1, "uninterrupted", "uninterrupted", "it sleeps uninterruptibly (state D)", nil),
			func(r *reader) bool { q, err := readProcess(r, dir); return err == nil && q.state == 'D' })
	}
}

// cgroupPath is the path in systemd's hierarchy: cgroup2's, or the named one. Where
// there are both it is the deeper, for in the other everything is in one cgroup.
func cgroupPath(b []byte) (found string) {
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || f[1] != "name=systemd" && f[1] != "" {
			continue
		}
		if p := path.Clean(f[2]); len(p) > len(found) {
			found = p
		}
	}
	return found
}

// unitOf reads the unit of systemd inside from a /proc/PID/cgroup: the last
// service or scope in the path below the container's own.
func unitOf(cgroup []byte, base string) string {
	rest, ok := strings.CutPrefix(cgroupPath(cgroup), strings.TrimSuffix(base, "/")+"/")
	if !ok {
		return ""
	}
	unit := ""
	for part := range strings.SplitSeq(rest, "/") {
		if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") {
			unit = part
		}
	}
	return printable(unit)
}
