package preflight

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestAStatusIsRead(t *testing.T) {
	got := parseStatus([]byte("Name:\ta\\nb\\\\c\x1b\nUmask:\t0022\nState:\tZ (zombie)\nTgid:\t7\nPid:\t7\nPPid:\t3\n" +
		"TracerPid:\t12\nNSpid:\t7\t2\t1\nNSsid:\t7\t0\nThreads:\t4\nRssAnon:\t     100 kB\nRssShmem:\t       3 kB\nbroken\nState\n"))
	want := process{
		pid: 7, pids: []int{7, 2, 1}, session: []int{7, 0}, comm: `a\nb\c\x1b`, state: 'Z', parent: 3, tracer: 12,
		threads: 4, anon: 100 << 10, shmem: 3 << 10,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(process{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !got.ended() || at(got.pids, 2) != 2 || at(got.pids, 4) != 0 || at(got.session, 2) != 0 || at(nil, 1) != 0 {
		t.Errorf("%+v", got)
	}
	parseStatus(nil)
}

func TestThreadsThatAreAboutToEndAreTold(t *testing.T) {
	for status, want := range map[string]bool{
		"State:\tR (running)\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n": true,
		"State:\tR (running)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n": false, // not yet given to it
		"State:\tS (sleeping)\nSigPnd:\t0000000000004002\n":                           false,
		"State:\tX (dead)\n":   true,
		"State:\nSigPnd:\tx\n": false,
		"":                     false,
	} {
		if got := killed([]byte(status)); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
	for stat, want := range map[string]bool{
		"7 (a) b) R 1 7 7 0 -1 4194308 101 0": true,
		"7 (a) b) R 1 7 7 0 -1 4194304 101 0": false,
		"7 (4 4 4 4 4 4 4":                    false,
		"":                                    false,
	} {
		if got := exiting([]byte(stat)); got != want {
			t.Errorf("%q: %v", stat, got)
		}
	}
}

func TestTheUnitIsTheOneInside(t *testing.T) {
	tests := []struct{ cgroup, base, want string }{
		{"0::/ctctl-1/system.slice/nginx.service\n", "/ctctl-1", "nginx.service"},
		{"1:cpu:/x.service\n0::/ctctl-1/user.slice/user@0.service/app.slice/run.scope\n", "/ctctl-1", "run.scope"},
		{"2:name=systemd:/ctctl-1/system.slice/a.service/sub\n0::/ctctl-1\n", "/ctctl-1", "a.service"},
		{"2:name=systemd:/ctctl-1\n0::/ctctl-1/init/system.slice/a.service\n", "/ctctl-1/init", "a.service"},
		{"0::/system.slice/ctctl.service/ctctl-1\n", "/system.slice/ctctl.service/ctctl-1", ""},
		{"0::/system.slice/ctctl.service\n", "/ctctl-1", ""},
		{"0::/ctctl-1/a\x1b.service\n", "/ctctl-1", `a\x1b.service`},
		{"", "/", ""},
	}
	for _, tt := range tests {
		if got := unitOf([]byte(tt.cgroup), tt.base); got != tt.want {
			t.Errorf("unit of %q below %s is %q, want %q", tt.cgroup, tt.base, got, tt.want)
		}
	}
}

// table makes a mount table of one namespace.
func table(t *testing.T, lines ...string) *mountTable {
	t.Helper()
	mt := new(mountTable)
	list, err := parseMounts([]byte(strings.Join(lines, "\n") + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	mt.add(list, &process{mnt: "mnt"})
	return mt
}

func TestMountsHideOneAnother(t *testing.T) {
	mt := table(t,
		"10 9 0:20 /vol / rw - btrfs /dev/x rw",
		"11 10 0:21 / /run rw - tmpfs tmpfs rw",
		"12 11 0:22 / /run/lock rw - tmpfs tmpfs rw",
		"13 10 0:23 / /mnt rw - tmpfs tmpfs rw",
		"14 13 0:24 / /mnt rw - tmpfs tmpfs rw", // on 13
		"15 10 0:25 / /run rw - tmpfs tmpfs rw", // on 11, beside it
		`16 10 0:26 / /a\040b rw shared:1 - tmpfs tmpfs rw`,
	)
	covered := map[uint64]bool{}
	for id, m := range mt.byID {
		if m.covered() {
			covered[id] = true
		}
	}
	if diff := cmp.Diff(map[uint64]bool{11: true, 12: true, 13: true, 15: true}, covered); diff != "" {
		// CRIU, too, takes of two beside each other both for covered.
		t.Errorf("covered (-want +got):\n%s", diff)
	}
	for path, want := range map[string]uint64{"/etc/x": 10, "/mnt/f": 14, "/mnt": 14, "/mntx": 10, "/a b/c": 16} {
		if got := mt.visible("mnt", path); got == nil || got.id != want {
			t.Errorf("%s leads to %+v, want %d", path, got, want)
		}
	}
	if mt.visible("other", "/") != nil {
		t.Error("a namespace that is not there has mounts")
	}
}

func TestMountsInARingAreNoTrap(t *testing.T) {
	mt := table(t, "1 2 0:1 / /a rw - tmpfs t rw", "2 1 0:1 / /b rw - tmpfs t rw", "3 3 0:1 / / rw - tmpfs t rw")
	for _, m := range mt.byID {
		m.covered()
	}
}

func TestMappingsAreRead(t *testing.T) {
	got := parseMaps([]byte(`00400000-00500000 r-xp 00000000 00:45 123                                /usr/bin/a b (deleted)
00500000-00501000 rw-p 00100000 00:45 123                                /usr/bin/a b (deleted)
01000000-02000000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000001000 rw-s 00000000 00:01 9                          /dev/zero (deleted)
7f0000001000-7f0000002000 rw-s 00000000 00:0f 77                         anon_inode:[io_uring]
7f0000002000-7f0000003000 --xp 00000000 00:00 0                          [uprobes]
7f0000003000-7f0000004000 rw-p 00000000 00:45 124
zzz
7f-1 rw-s 0 0:0 1 x
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`))
	want := []mapping{
		{0x400000, 0x500000, false, "00:45", "123", "/usr/bin/a b (deleted)"},
		{0x7f0000000000, 0x7f0000001000, true, "00:01", "9", "/dev/zero (deleted)"},
		{0x7f0000001000, 0x7f0000002000, true, "00:0f", "77", "anon_inode:[io_uring]"},
		{0x7f0000002000, 0x7f0000003000, false, "00:00", "0", "[uprobes]"},
		{0x7f0000003000, 0x7f0000004000, false, "00:45", "124", ""},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mapping{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestUnreadNetlinkSocketsAreFound(t *testing.T) {
	got := parseNetlink(`sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000f4f4f4f4 0   1234       00000001 0        0        0     2        0        100
00000000f4f4f4f5 15  1234       00000001 768      0        0     2        0        101
short line
`)
	if diff := cmp.Diff(map[string]bool{"101": true}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// reply makes one netlink message.
func reply(kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(append(b, make([]byte, 10)...), body...)
}

func diagBody(kind byte, inode uint32, attributes ...byte) []byte {
	b := make([]byte, diagMessage)
	b[0], b[1] = unix.AF_UNIX, kind
	binary.NativeEndian.PutUint32(b[4:], inode)
	return append(b, attributes...)
}

func attribute(kind uint16, value uint32) []byte {
	b := binary.NativeEndian.AppendUint16(nil, 8)
	b = binary.NativeEndian.AppendUint16(b, kind)
	return binary.NativeEndian.AppendUint32(b, value)
}

func TestUnixConnectionsAreRead(t *testing.T) {
	stream := reply(sockDiagByFamily, diagBody(unix.SOCK_STREAM, 5, append(attribute(7, 1), attribute(diagPeer, 6)...)...))
	packets := reply(sockDiagByFamily, diagBody(unix.SOCK_SEQPACKET, 8, attribute(diagPeer, 9)...))
	datagram := reply(sockDiagByFamily, diagBody(unix.SOCK_DGRAM, 10, attribute(diagPeer, 11)...))
	alone := reply(sockDiagByFamily, diagBody(unix.SOCK_STREAM, 12))
	var all []byte
	for _, b := range [][]byte{stream, packets, datagram, alone} {
		all = append(all, b...)
	}
	got, done, err := parseDiag(all)
	if err != nil || done {
		t.Errorf("done %v, %v", done, err)
	}
	if diff := cmp.Diff([]connection{{5, 6}, {8, 9}}, got, cmp.AllowUnexported(connection{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, done, err := parseDiag(reply(unix.NLMSG_DONE, nil)); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	refused := -int32(unix.EPERM)
	body := binary.NativeEndian.AppendUint32(nil, uint32(refused))
	if _, done, err := parseDiag(reply(unix.NLMSG_ERROR, body)); !done || err != unix.EPERM {
		t.Errorf("done %v, %v", done, err)
	}
	for n := range all { // whatever is cut off is no trap
		parseDiag(all[:n])
	}
}

func TestCodesAreMadeOfNames(t *testing.T) {
	for name, want := range map[string]string{
		"[io_uring]": "io_uring", "seccomp notify": "seccomp-notify", "bpf-map": "bpf-map", "SMC6": "smc6", "": "",
		"[[a\x1b]": "a", "kvm-vcpu:3": "kvm-vcpu-3", strings.Repeat("x", 99): strings.Repeat("x", 32),
	} {
		if got := codeOf(name); got != want {
			t.Errorf("code of %q is %q, want %q", name, got, want)
		}
	}
}

func TestNamesOfTheContainerAreSafeToPrint(t *testing.T) {
	for _, s := range []string{"plain", "é 日本", "\x1b]0;x\a", "a\nb\r\t", "\xff\xfe", "\u202e\u200b", strings.Repeat("\x01", 5000)} {
		got := printable(s)
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
			t.Errorf("%q becomes %q", s, got)
		}
		if len(got) > mostWords+20 {
			t.Errorf("%d bytes of %d", len(got), len(s))
		}
	}
	if got := printable("é 日本"); got != "é 日本" {
		t.Errorf("got %q", got)
	}
}

func FuzzReaders(f *testing.F) {
	f.Add([]byte("1-2 rw-s 0 0:0 1 /x\n1 2 0:1 / / rw - a b\nName:\tx\nNSpid:\t1\t2\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		parseStatus(b)
		parseMaps(b)
		mt := new(mountTable)
		if list, err := parseMounts(b); err == nil {
			mt.add(list, &process{})
		}
		for _, m := range mt.byID {
			m.covered()
			mt.visible("", m.point)
		}
		parseNetlink(string(b))
		parseDiag(b)
		unitOf(b, "/")
		printable(codeOf(string(b)) + string(b))
	})
}
