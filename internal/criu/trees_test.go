package criu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ctctl/ctctl/storage/btrfs"
	"golang.org/x/sys/unix"
)

const (
	treeArg0     = "ctctl-test-tree"
	treeReady    = "ready"
	treeResult   = "result"
	treePatience = 20 * time.Second
)

// trees are what processes of tests do: prepare something and return how to see,
// after a restore, that it is as it was.
var trees = map[string]func() (check func() error, err error){
	"watch": watchTree, "exe": exeTree, "gone exe": goneExeTree, "backlog": backlogTree,
}

// runTree is the process: it says when it is ready, and what it finds at each SIGUSR1.
func runTree(name string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	check, err := trees[name]()
	must(err)
	must(os.WriteFile("/"+treeReady, nil, 0o600))
	for range signals {
		result := "as it was"
		if err := check(); err != nil {
			result = err.Error()
		}
		must(os.WriteFile("/"+treeResult+".new", []byte(result), 0o600))
		must(os.Rename("/"+treeResult+".new", "/"+treeResult))
	}
}

// tree is such a process, with its root and its images.
type tree struct {
	*canary
	cmd *exec.Cmd
}

// localtime makes a link to watch.
func localtime(root string) error {
	return errors.Join(os.Mkdir(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "etc/zone"), nil, 0o644), os.Symlink("zone", filepath.Join(root, "etc/localtime")))
}

// nothing needs no preparation.
func nothing(string) error { return nil }

// startTree starts one in a directory, on a root that prepare fills.
func startTree(t *testing.T, dir, name string, prepare func(root string) error) tree {
	t.Helper()
	c := &canary{dir: dir}
	for _, d := range []string{c.root(), filepath.Join(c.root(), "proc"), c.images()} {
		if err := os.MkdirAll(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(prepare(c.root()), c.copyProgram()); err != nil {
		t.Fatal(err)
	}
	cmd, err := c.startAs(context.WithoutCancel(t.Context()), treeArg0, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	tr := tree{c, cmd}
	tr.await(t, treeReady)
	return tr
}

// await waits for a file and returns what is in it.
func (tr tree) await(t *testing.T, name string) string {
	t.Helper()
	for end := time.Now().Add(treePatience); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(tr.root(), name))
		if err == nil {
			return string(b)
		}
		if time.Now().After(end) {
			t.Fatalf("no file %s: %s", name, tr.log())
		}
	}
}

// dump ends the tree and leaves its images.
func (tr tree) dump(t *testing.T, e Engine) {
	t.Helper()
	_, err := e.Dump(t.Context(), DumpOptions{PID: tr.cmd.Process.Pid, Root: tr.root(), Images: tr.images(), OwnNetNS: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.cmd.Wait(); err == nil {
		t.Fatal("the tree ended by itself")
	}
	if err := MakeReadable(tr.images()); err != nil {
		t.Fatal(err)
	}
}

// restore brings the tree back, asks it whether all is as it was, and ends it.
func (tr tree) restore(t *testing.T, e Engine) error {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(tr.root(), treeResult)); err != nil {
		t.Fatal(err)
	}
	return tr.inMounts(func() error {
		pid, _, err := e.Restore(t.Context(), RestoreOptions{
			Images: tr.images(), Work: tr.dir, Root: tr.root(), OwnNetNS: true, Sibling: true,
			Notify: func(_ context.Context, ev Event) error {
				if ev.Script == EventSetupNamespaces {
					return loopbackUpIn(ev.PID)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		defer reap(pid)
		if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
			return err
		}
		if result := tr.await(t, treeResult); result != "as it was" {
			return errors.New(result)
		}
		return nil
	})
}

// wantNeeded sees that a fix is needed: that the images can't be restored without.
func (tr tree) wantNeeded(t *testing.T, e Engine, kind FixKind) {
	t.Helper()
	v, err := e.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, fix := range imageFixes() {
		if fix.kind != kind || !fix.neededBy(v) {
			continue
		}
		if fix.lastKnown.Less(v) {
			t.Logf("CRIU %s is newer than the last one seen to need %q: if it does, update lastKnown", v, kind)
		}
		var ce *Error
		switch err := tr.restore(t, e); {
		case err == nil:
			t.Errorf("CRIU %s restores without %q: set cured in imageFixes to the first version that does", v, kind)
		case !errors.As(err, &ce):
			t.Errorf("the restore without %q failed otherwise than in CRIU: %v", kind, err)
		default:
			t.Logf("without %q: %v", kind, err)
		}
	}
}

// fix is FixImages, which must do something of one kind.
func (tr tree) fix(t *testing.T, o FixOptions, kind FixKind) []Fix {
	t.Helper()
	fixes, err := FixImages(t.Context(), tr.images(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fixes {
		t.Log(f)
		if f.Kind != kind {
			t.Errorf("%s is not expected", f)
		}
	}
	if len(fixes) == 0 {
		t.Errorf("there was nothing to fix of kind %q", kind)
	}
	return fixes
}

// watchTree watches a link and what it leads to, as systemd's path units do.
func watchTree() (func() error, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	const mask = unix.IN_ATTRIB | unix.IN_MOVE_SELF
	link, err := unix.InotifyAddWatch(fd, "/etc/localtime", mask|unix.IN_DONT_FOLLOW)
	if err != nil {
		return nil, err
	}
	file, err := unix.InotifyAddWatch(fd, "/etc/localtime", mask)
	if err != nil {
		return nil, err
	}
	return func() error {
		now := []unix.Timeval{{Sec: time.Now().Unix()}, {Sec: time.Now().Unix()}}
		if err := unix.Lutimes("/etc/localtime", now); err != nil {
			return err
		}
		if err := wantEvent(fd, link); err != nil {
			return fmt.Errorf("the link was touched: %w", err)
		}
		if err := unix.Utimes("/etc/localtime", now); err != nil {
			return err
		}
		if err := wantEvent(fd, file); err != nil {
			return fmt.Errorf("the file was touched: %w", err)
		}
		return nil
	}, nil
}

// wantEvent reads one event, which must be of a watch.
func wantEvent(fd, wd int) error {
	buf := make([]byte, unix.SizeofInotifyEvent)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err
	}
	if n != len(buf) || int(buf[0]) != wd {
		return fmt.Errorf("%d bytes of watch %d, not of watch %d", n, buf[0], wd)
	}
	if n, err := unix.Read(fd, buf); !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("a second event: %d bytes of watch %d, %w", n, buf[0], err)
	}
	return nil
}

// exeTree holds its own program open with O_PATH.
func exeTree() (func() error, error) {
	fd, err := unix.Open("/"+canaryProgram, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return func() error {
		exe, err := os.Readlink("/proc/self/exe")
		if err != nil {
			return err
		}
		if want := "/" + canaryProgram; strings.TrimSuffix(exe, " (deleted)") != want {
			return fmt.Errorf("the program is %s, not %s", exe, want)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_PATH == 0 {
			return fmt.Errorf("the descriptor has flags %#o, %w", flags, err)
		}
		return nil
	}, nil
}

// goneExeTree deletes the program as well, as an upgrade does.
func goneExeTree() (func() error, error) {
	check, err := exeTree()
	if err != nil {
		return nil, err
	}
	return check, os.Remove("/" + canaryProgram)
}

// backlogTree has connected to a listener that comes after the client's descriptor
// and never accepts, until it is asked.
func backlogTree() (func() error, error) {
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "unix", "/socket")
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(client, &unix.SockaddrUnix{Name: "/socket"}); err != nil {
		return nil, err
	}
	return func() error {
		if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(treePatience)); err != nil {
			return err
		}
		server, err := l.Accept()
		if err != nil {
			return err
		}
		defer server.Close()
		if _, err := unix.Write(client, []byte("hello")); err != nil {
			return err
		}
		buf := make([]byte, 10)
		n, err := server.Read(buf)
		if string(buf[:n]) != "hello" {
			return fmt.Errorf("the server got %q, %w", buf[:n], err)
		}
		return nil
	}, nil
}

// ownMountsEnv is set in a test that runs in a mount namespace of its own.
const ownMountsEnv = "CTCTL_TEST_OWN_MOUNTS"

// inOwnMounts runs the calling test again as a process with a mount namespace of its
// own, and says whether this is that process. A pool that is mounted where others
// see it can't be detached while containers of other tests have copies of the mount.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownMountsEnv) != "" {
		forgetPools(t)
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), ownMountsEnv+"=1")
	// Unshareflags, unlike Cloneflags, makes Go turn all mounts private.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

// forgetPools unmounts, in this namespace only, the copies of other tests' pools.
func forgetPools(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.Contains(line, " - btrfs /dev/loop") {
			continue
		}
		if err := unix.Unmount(strings.Fields(line)[4], unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

// openPool returns a small btrfs pool.
func openPool(t *testing.T, root string) *btrfs.Driver {
	t.Helper()
	d, err := btrfs.Open(t.Context(), btrfs.Options{Root: root, PoolBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return d
}
