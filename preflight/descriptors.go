package preflight

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// anonymous inodes that CRIU saves (files.c).
var savedInodes = map[string]bool{
	"[eventfd]": true, "[eventpoll]": true, "inotify": true, "[inotify]": true, "[fanotify]": true, "fanotify": true,
	"[signalfd]": true, "[timerfd]": true, "[pidfd]": true,
}

// inodeNames say what others are.
var inodeNames = map[string]string{
	"[io_uring]": "io_uring", "[perf_event]": "perf event", "bpf-map": "bpf map", "bpf-prog": "bpf program",
	"bpf_link": "bpf link", "[userfaultfd]": "userfaultfd", "seccomp notify": "seccomp listener",
	"[landlock-ruleset]": "Landlock rules, which CRIU loses in silence once they are in force", "[fscontext]": "mount being made",
	"kvm-vm": "virtual machine", "btf": "bpf type information",
}

// lookAtDescriptors looks at each of a process's. Of those in the same table as
// another process's the findings are said of both.
func (x *examination) lookAtDescriptors(r *reader, p *process) error {
	fds, err := numbers(p.path + "/fd")
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.descriptors += len(fds)
	x.mu.Unlock()
	for _, fd := range fds {
		link, err := r.readlink(p.path + "/fd/" + strconv.Itoa(fd))
		if err == nil {
			x.descriptor(r, p, fd, fds, link)
		} else if !vanished(err) {
			return err
		}
	}
	return nil
}

func (x *examination) descriptor(r *reader, p *process, fd int, fds []int, link string) {
	switch {
	case strings.HasPrefix(link, "/"):
		x.file(r, p, fd, p.path+"/fd/"+strconv.Itoa(fd), link)
	case strings.HasPrefix(link, "socket:["):
		x.socket(r, p, fd, link)
	case strings.HasPrefix(link, "pipe:["):
		if !x.mounts.autofs && fdFlags(r, p, fd)&unix.O_DIRECT != 0 {
			x.add(r, p, fd, "packet-pipe", "packet-pipe", "pipe in packet mode (O_DIRECT)", nil)
		}
	case strings.HasPrefix(link, "anon_inode:"):
		x.anonymous(r, p, fd, fds, strings.TrimPrefix(link, "anon_inode:"))
	case strings.HasPrefix(link, "pidfd:"):
		x.pidfd(r, p, fd)
	case namespaceLink(link):
		if !x.spaces[link] {
			x.add(r, p, fd, "namespace-file", "namespace-file", "descriptor of a namespace in which no process of the container is: "+link, nil)
		}
	default:
		x.unsaved(r, p, fd, "anonymous", link, Descriptors)
	}
}

// anonymous looks at a descriptor without a file.
func (x *examination) anonymous(r *reader, p *process, fd int, fds []int, name string) {
	switch {
	case name == "[eventpoll]":
		x.epoll(r, p, fd, fds)
	case name == "[pidfd]":
		x.pidfd(r, p, fd)
	case !savedInodes[name]:
		x.unsaved(r, p, fd, "anonymous", name, Descriptors)
	}
}

// unsaved adds a finding about an anonymous inode, open or mapped.
func (x *examination) unsaved(r *reader, p *process, fd int, rule, name, area string) {
	code, what := codeOf(name), inodeNames[name]
	if what == "" {
		what = printable(name)
	}
	if area == Mappings {
		what = "mapping of " + what
	} else if name == "[io_uring]" {
		rule = "io_uring"
	}
	x.add(r, p, fd, code, rule, what, map[string]string{"link": printable(name)})
}

// codeOf makes a code of a kernel's name: "seccomp notify" is "seccomp-notify".
func codeOf(name string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(strings.Trim(name, "[]")) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
			b.WriteRune(c)
		case b.Len() > 0 && c < 0x80 && b.Len() < 32:
			b.WriteByte('-')
		}
	}
	code := b.String()
	return strings.Trim(code[:min(len(code), 32)], "-")
}

// fdInfo reads proc_pid_fdinfo(5), and each line's value after a key.
func fdInfo(r *reader, p *process, fd int, key string, each func(value string)) {
	b, err := r.read(p.path+"/fdinfo/"+strconv.Itoa(fd), mostList)
	if err != nil {
		return // gone
	}
	for line := range bytes.Lines(b) {
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && string(bytes.TrimSpace(name)) == key {
			each(string(bytes.TrimSpace(value)))
		}
	}
}

// fdFlags are those of open(2), 0 for what is gone.
func fdFlags(r *reader, p *process, fd int) (flags int64) {
	fdInfo(r, p, fd, "flags", func(v string) {
		if n, err := strconv.ParseInt(v, 8, 64); err == nil {
			flags = n
		}
	})
	return flags
}

// fdNumber is a decimal value; ok is false if there is none.
func fdNumber(r *reader, p *process, fd int, key string) (n int, ok bool) {
	fdInfo(r, p, fd, key, func(v string) {
		if k, err := strconv.Atoi(v); err == nil {
			n, ok = k, true
		}
	})
	return n, ok
}

// pidfd wants the process to be in the image, too. One that has ended is -1.
func (x *examination) pidfd(r *reader, p *process, fd int) {
	if fdFlags(r, p, fd)&unix.O_EXCL != 0 {
		x.add(r, p, fd, "pidfd-thread", "pidfd-thread", "pidfd of a thread", nil)
		return
	}
	of, ok := fdNumber(r, p, fd, "Pid")
	if !ok || of <= 0 || x.tree[of] != nil {
		return
	}
	x.doubtful(x.finding(r, p, fd, "pidfd-outside", "pidfd-outside", fmt.Sprintf("pidfd of process %d, which is not the container's", of), nil),
		func(r *reader) bool {
			// A child that has come since is no stranger.
			q, err := readProcess(r, "/proc/"+strconv.Itoa(of))
			now, ok := fdNumber(r, p, fd, "Pid")
			return err == nil && ok && now == of && x.tree[q.parent] == nil
		})
}

// mostCompared bounds how many descriptors are compared with one, and how many
// of an epoll are.
const mostCompared = 1024

// epoll looks for what is waited for and is not open here any more: under the
// number that it was added by, or another.
func (x *examination) epoll(r *reader, p *process, fd int, fds []int) {
	lost := escaped(r, p, fd, fds)
	if lost < 0 {
		return
	}
	what := fmt.Sprintf("epoll that waits for what was descriptor %d, which is closed here and open elsewhere", lost)
	x.doubtful(x.finding(r, p, fd, "epoll-escaped", "epoll-escaped", what, nil), func(r *reader) bool {
		now, err := numbers(p.path + "/fd")
		return err == nil && escaped(r, p, fd, now) >= 0
	})
}

// escaped returns a number in an epoll whose file is not open, -1 for none.
func escaped(r *reader, p *process, efd int, fds []int) int {
	var targets []int
	fdInfo(r, p, efd, "tfd", func(v string) {
		word, _, _ := strings.Cut(v, " ")
		if n, err := strconv.Atoi(word); err == nil {
			targets = append(targets, n)
		}
	})
	seen := map[int]int{}
	for _, n := range targets[:min(len(targets), mostCompared)] {
		offset := seen[n]
		seen[n]++
		if !openAs(p.pid, efd, n, offset, fds) {
			return n
		}
	}
	return -1
}

// openAs tells whether a file in an epoll is open, most likely under its number.
func openAs(pid, efd, n, offset int, fds []int) bool {
	if sameTarget(pid, n, efd, n, offset) {
		return true
	}
	for _, fd := range fds[:min(len(fds), mostCompared)] {
		if sameTarget(pid, fd, efd, n, offset) {
			return true
		}
	}
	return false
}
