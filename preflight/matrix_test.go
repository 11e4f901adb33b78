package preflight

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/preflight/obstacle"
)

// matrix is what Examine must say about each obstacle: the level and the code,
// separated by a colon, and "fd" when it must name a descriptor. Nothing means
// that there must be no finding at all.
var matrix = map[string]string{
	"nothing": "", "ordinary": "", "crowd": "", "busy": "",

	"io_uring": "fail:io_uring fd", "io_uring-mapping": "fail:io_uring",
	"perf_event": "fail:perf_event fd", "perf_event-mapping": "fail:perf_event",
	"bpf-map": "fail:bpf-map fd", "bpf-prog": "fail:bpf-prog fd",
	"userfaultfd": "fail:userfaultfd fd", "seccomp-listener": "fail:seccomp-notify fd",
	"landlock-ruleset": "fail:landlock-ruleset fd", "landlock": "", // nowhere to be seen
	"memfd_secret": "fail:memfd_secret fd", "mount-context": "fail:fscontext fd",
	"fanotify": "", "inotify-removed": "", "pidfd-thread": "fail:pidfd-thread fd",
	"epoll-escaped": "warn:epoll-escaped fd", "pipe-packets": "fail:packet-pipe fd",

	"vsock": "fail:vsock fd", "mptcp": "fail:mptcp fd", "sctp": "fail:sctp fd", "smc": "fail:smc fd",
	"tipc": "fail:tipc fd", "can": "fail:can_raw fd", "kcm": "fail:kcm fd", "alg": "fail:alg fd", "xdp": "fail:xdp fd",
	"packet": "", "packet-unbound": "", "raw-icmp": "", "raw-icmp6": "", "raw-connected": "", "ping": "warn:ping fd",
	"netlink-unread": "warn:netlink-unread fd", "unix-fd": "warn:queued-descriptors fd",
	"unix-io_uring": "warn:queued-descriptors fd", "unix-creds": "", "udp-corked": "", // the kernel does not tell

	"exec-session": "warn:exec-session", "exec-connected": "warn:exec-session,fail:unix-outside fd",
	"exec-lock": "warn:exec-session", "exec-pipe": "warn:exec-session",
	"exec-daemon": "", "exec-sessionless": "fail:foreign-leader", "exec-other-cgroup": "", // no cgroup is made here
	"host-file": "fail:outside-file fd", "foreign-tty": "fail:foreign-tty fd",
	"deleted-small": "", "deleted-large": "fail:deleted-large fd", "deleted-ugly": "fail:deleted-large fd", "other-name": "", "other-name-lost": "",
	"device": "fail:device fd", "device-memory": "", "device-block": "fail:device fd", "tun": "fail:tun fd",
	"lease": "", "ofd-lock": "", "mqueue": "fail:mqueue-open fd,fail:mqueue", "aio": "",

	"traced": "fail:traced", "stopped": "", "vfork": "warn:uninterrupted", "headless": "fail:leader-ended",
	"ns-pid": "fail:nested-pid", "ns-ipc": "fail:nested-ipc", "ns-uts": "fail:nested-uts", "ns-user": "fail:nested-user",
	"ns-net": "fail:nested-net", "ns-mnt": "", "ns-cgroup": "fail:nested-cgroup", "ns-time": "fail:nested-time",
	"ns-file": "fail:namespace-file fd",

	"mount-ramfs": "fail:file-system", "mount-hugetlb": "fail:file-system", "mount-fuse": "fail:fuse,fail:device fd",
	"mount-nsfs": "fail:orphan", "mount-orphan": "fail:orphan", "mount-overlay": "fail:overlay",
	"mount-autofs": "warn:autofs", "overmounted": "fail:covered-file fd", "covered": "fail:covered-file fd",
	"detached": "fail:outside-file fd", "mqueue-empty": "", "mount-tmpfs": "", "mount-cgroup2": "", "mount-sysfs": "",
	"mount-debugfs": "", "mount-binfmt": "", "mount-pstore": "",
}

func TestEveryObstacleIsNamedWithItsProcessAndCure(t *testing.T) {
	testutil.Require(t, testutil.Root)
	for name, want := range matrix {
		t.Run(name, func(t *testing.T) {
			tree := plant(t, name)
			if tree == nil {
				return
			}
			rep, err := Examine(t.Context(), target(tree))
			if err != nil {
				t.Fatal(err)
			}
			wantFindings(t, rep, tree, want)
		})
	}
	for _, name := range obstacle.Names() {
		if _, ok := matrix[name]; !ok {
			t.Errorf("nothing is said of %s", name)
		}
	}
}

// plant starts a tree, or returns nil when it can't be made here.
func plant(t testing.TB, name string) *obstacle.Tree {
	t.Helper()
	root := filepath.Join(testutil.TempDir(t), "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := obstacle.Start(t.Context(), root, name, obstacle.Options{})
	if errors.Is(err, obstacle.ErrUnable) {
		t.Logf("cannot be made here: %v", err)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.End(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

func target(tree *obstacle.Tree) Target {
	return Target{
		Init: tree.Init, PIDs: tree.Members, Name: "web1", GhostLimitBytes: 1 << 20,
		External: []string{"/usr", "/lib", "/lib64"}, // where a program that is not static has its libraries
	}
}

func wantFindings(t *testing.T, rep Report, tree *obstacle.Tree, want string) {
	t.Helper()
	missing, seen := map[string]bool{}, map[string]bool{}
	for w := range strings.SplitSeq(want, ",") {
		if w != "" {
			missing[w] = true
		}
	}
	for _, f := range rep.Findings {
		if f.Level == Pass {
			continue
		}
		t.Logf("%s %s: %s; CRIU: %s", f.Level, f.Code, f, f.CRIU)
		got := string(f.Level) + ":" + f.Code
		if f.FD >= 0 {
			got += " fd"
		}
		if !missing[got] && !seen[got] {
			t.Errorf("unexpected: %s", got)
		}
		delete(missing, got)
		seen[got] = true
		if f.Cure == "" || f.CRIU == "" || f.What == "" || strings.ContainsAny(f.String()+f.CRIU, "{}") {
			t.Errorf("incomplete: %+v", f)
		}
		if text := f.String() + f.CRIU + f.Code; strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
			t.Errorf("not printable: %q", text)
		}
		if f.Area == Mounts {
			continue
		}
		if f.HostPID == tree.Init || f.HostPID == 0 || f.PID < 2 || f.Command == "" {
			t.Errorf("the process is not named: %+v", f)
		}
	}
	for w := range missing {
		t.Errorf("no finding %s", w)
	}
}
