package quota

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

// The test binary plays these parts when the variable is set.
const (
	partVar   = "CTCTL_QUOTA_TEST_PART"
	partVfork = "vfork" // waits in vfork for a child that lives for the duration in the next argument
	partHang  = "hang"  // sleeps uninterruptibly in a request to a file system that does not answer
	partEat   = "eat"   // fills the given number of bytes, says "full", and stays
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(partVar) {
	case "":
		testutil.Main(m)
	case partVfork:
		err = playVfork(os.Args[1])
	case partHang:
		err = playHang(os.Args[1])
	case partEat:
		err = playEat(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// playVfork uses CLONE_VFORK without CLONE_VM, so that the child has memory of
// its own and may wait as long as it likes.
func playVfork(life string) error {
	d, err := time.ParseDuration(life)
	if err != nil {
		return err
	}
	ts := unix.NsecToTimespec(d.Nanoseconds())
	fmt.Println("ready")
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, syscall.CLONE_VFORK|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		childSleep(&ts)
	}
	time.Sleep(time.Hour)
	return nil
}

func playEat(size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		mem[i] = 1
	}
	fmt.Println("full")
	time.Sleep(time.Hour)
	return unix.Munmap(mem)
}

// playHang mounts fuse in its own mount namespace, never answers the kernel's
// greeting, and looks at the mount.
func playHang(dir string) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	o := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("none", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, o); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = os.ReadDir(dir)
	return err
}

func needRoot(t testing.TB) {
	t.Helper()
	testutil.Require(t, testutil.Root)
}

func groupName(t testing.TB) string {
	t.Helper()
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return "/ctctl-test-" + hex.EncodeToString(b[:])
}

// realGroup makes a group of this host and removes it with all its processes.
func realGroup(t testing.TB, m mounts) Group {
	t.Helper()
	needRoot(t)
	g, err := openIn(m, groupName(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the context of the test has ended by now
		if err := g.KillAll(deadline(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		if err := g.Remove(deadline(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
		if g.Exists() {
			t.Errorf("%s is left over", g.Name())
		}
	})
	if err := g.Make(); err != nil {
		t.Fatal(err)
	}
	return g
}

func hostMounts(t testing.TB) mounts {
	t.Helper()
	m, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// v1Only is this host without its cgroup2 mount.
func v1Only(t testing.TB) mounts {
	t.Helper()
	m := hostMounts(t)
	if _, ok := m.v1["freezer"]; !ok {
		t.Skip("this host has no v1 freezer")
	}
	m.unified = ""
	return m
}

// run starts a command inside the group (in cgroup2 in its sub-cgroup sub) and
// returns its process and its output. It is waited for when the test ends.
func run(t testing.TB, g Group, sub string, mod func(*exec.Cmd), args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	// The shell waits until it has been put into the group.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `read go && exec "$@"`, "sh"}, args...)...)
	if mod != nil {
		mod(cmd)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = g.Thaw()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := g.Add(cmd.Process.Pid, sub); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// play starts the test binary in one of its parts.
func play(t testing.TB, g Group, mod func(*exec.Cmd), part, arg string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return run(t, g, "", func(c *exec.Cmd) {
		c.Env = append(os.Environ(), partVar+"="+part)
		if mod != nil {
			mod(c)
		}
	}, self, arg)
}

func expect(t testing.TB, r *bufio.Reader, want string) {
	t.Helper()
	got, err := r.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		t.Fatalf("the process said %q (%v), want %q", got, err, want)
	}
}

// eventually waits until the condition holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 30 s", what)
		}
	}
}
