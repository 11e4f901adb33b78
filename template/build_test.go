package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

// fakeTool puts a program called mmdebstrap first in PATH. In the script, $6 is
// the directory to fill.
func fakeTool(t *testing.T, script string) {
	t.Helper()
	bin := testutil.TempDir(t)
	must(t, os.WriteFile(filepath.Join(bin, "mmdebstrap"), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

func TestBuildOptionsAreChecked(t *testing.T) {
	good := BuildOptions{Suite: "bookworm", Init: InitNone}
	tests := map[string]func(*BuildOptions){
		"no suite":           func(o *BuildOptions) { o.Suite = "" },
		"suite as an option": func(o *BuildOptions) { o.Suite = "--help" },
		"suite with a space": func(o *BuildOptions) { o.Suite = "sid main" },
		"variant":            func(o *BuildOptions) { o.Variant = "extract" },
		"mirror as a file":   func(o *BuildOptions) { o.Mirror = "/etc/shadow" },
		"mirror as a line":   func(o *BuildOptions) { o.Mirror = "deb [trusted=yes] http://x/ y z" },
		"mirror with a line": func(o *BuildOptions) { o.Mirror = "http://x/debian\nhttp://y" },
		"mirror of apt":      func(o *BuildOptions) { o.Mirror = "rsh://x/debian" },
		"package option":     func(o *BuildOptions) { o.Packages = []string{"-oDir=/"} },
		"package list":       func(o *BuildOptions) { o.Packages = []string{"a,b"} },
		"package pattern":    func(o *BuildOptions) { o.Packages = []string{"?essential"} },
		"package removal":    func(o *BuildOptions) { o.Packages = []string{"dpkg-"} },
		"package path":       func(o *BuildOptions) { o.Packages = []string{"./x.deb"} },
		"empty package":      func(o *BuildOptions) { o.Packages = []string{""} },
		"init":               func(o *BuildOptions) { o.Init = "upstart" },
		"two inits":          func(o *BuildOptions) { o.Init, o.Packages = InitBusybox, []string{"systemd-sysv"} },
	}
	for name, spoil := range tests {
		o := good
		spoil(&o)
		if _, err := o.complete(); !errors.Is(err, ErrOption) {
			t.Errorf("%s: got %v, want ErrOption", name, err)
		}
	}
	good.Packages = []string{"redis-server", "g++", "libc6:amd64", "nginx=1.22.1-9+deb12u3", "git/bookworm-backports", "redis-server"}
	got, err := good.complete()
	must(t, err)
	want := BuildOptions{Suite: "bookworm", Variant: "minbase", Init: InitNone, Packages: []string{
		"ca-certificates", "g++", "git/bookworm-backports", "libc6:amd64", "nginx=1.22.1-9+deb12u3", "redis-server",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("complete (-want +got):\n%s", diff)
	}
}

func TestAMissingMmdebstrapNamesItsCure(t *testing.T) {
	m, _ := newManager(t)
	t.Setenv("PATH", testutil.TempDir(t))
	_, err := m.Build(context.Background(), "one", BuildOptions{Suite: "bookworm"})
	if !errors.Is(err, ErrToolMissing) || !strings.Contains(err.Error(), "apt-get install mmdebstrap") {
		t.Errorf("got %v, want ErrToolMissing", err)
	}
}

// fakeRoot makes what a build leaves, with all that must not be published.
const fakeRoot = `
echo "I: extracting archives..." >&2
cd "$6" || exit 9
mkdir -p etc/ssh dev usr/sbin var/lib/apt/lists/partial var/cache/apt/archives var/lib/dbus sbin
echo 0123456789abcdef0123456789abcdef >etc/machine-id
cp etc/machine-id var/lib/dbus/machine-id
echo build-host >etc/hostname
echo nameserver 192.0.2.1 >etc/resolv.conf
touch etc/ssh/ssh_host_rsa_key etc/ssh/ssh_host_rsa_key.pub etc/ssh/sshd_config usr/sbin/policy-rc.d
touch var/lib/apt/lists/deb.example_dists_x_Packages var/lib/apt/lists/lock
touch var/cache/apt/pkgcache.bin var/cache/apt/archives/x_1_all.deb var/cache/apt/archives/lock
mknod dev/null c 1 3
touch sbin/init && chmod 755 sbin/init
echo "$@" >etc/arguments
echo "$TMPDIR $DEBIAN_FRONTEND $SECRET" >etc/environment
`

func TestABuiltTemplateHasNoIdentityAndNoCaches(t *testing.T) {
	m, v := newManager(t)
	fakeTool(t, fakeRoot)
	t.Setenv("SECRET", "of the caller")
	var steps []string
	m.Progress = func(s string) { steps = append(steps, s) }
	o := BuildOptions{Suite: "bookworm", Packages: []string{"nginx"}, Mirror: "http://mirror.example/debian", Init: InitNone}
	got, err := m.Build(context.Background(), "one", o)
	must(t, err)
	want := Template{
		Name: "one", Suite: "bookworm", Packages: []string{"ca-certificates", "nginx"},
		Source: o.Mirror, Init: "/sbin/init", Volume: got.Volume,
		Digest: digestOf(t, v.Path(got.Volume)), SizeBytes: got.SizeBytes, Created: got.Created,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("template (-want +got):\n%s", diff)
	}
	root := v.Path(got.Volume)
	var files []string
	must(t, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(path, root+"/"))
		}
		return err
	}))
	wantFiles := []string{
		"etc/arguments", "etc/environment", "etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/ssh/sshd_config",
		"sbin/init", "var/cache/apt/archives/lock", "var/lib/apt/lists/lock",
	}
	if diff := cmp.Diff(wantFiles, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for name, content := range neutralFiles {
		if got := read(t, filepath.Join(root, name)); got != content {
			t.Errorf("%s holds %q", name, got)
		}
	}
	arguments := fmt.Sprintf("--mode=root --format=directory --variant=minbase --include=ca-certificates,nginx bookworm %s.work %s\n", root, o.Mirror)
	if diff := cmp.Diff(arguments, read(t, filepath.Join(root, "etc/arguments"))); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	environment := filepath.Join(m.Dir, "one.build.tmp") + " noninteractive \n"
	if diff := cmp.Diff(environment, read(t, filepath.Join(root, "etc/environment"))); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"one.json", got.Volume}, leftovers(t, m, v)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if !slices.Contains(steps, "extracting archives") {
		t.Errorf("progress was %q", steps)
	}
}

func TestNeutralisingRemovesDevicesAndWritesThroughNoLinks(t *testing.T) {
	testutil.Require(t, testutil.Root)
	base := testutil.TempDir(t)
	writeTree(t, base, map[string]string{"outside/machine-id": "ours", "outside/ssh_host_key": "ours", "root/etc/": ""})
	root := filepath.Join(base, "root")
	must(t, os.Symlink("../../outside", filepath.Join(root, "etc/ssh")))
	must(t, os.Symlink("../../outside/machine-id", filepath.Join(root, "etc/machine-id")))
	must(t, os.Symlink("../run/systemd/resolve/stub-resolv.conf", filepath.Join(root, "etc/resolv.conf")))
	writeTree(t, root, map[string]string{"dev/": ""})
	must(t, unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	before := digestOf(t, filepath.Join(base, "outside"))
	must(t, neutralise(context.Background(), root))
	if digestOf(t, filepath.Join(base, "outside")) != before {
		t.Error("something outside changed")
	}
	if _, err := os.Readlink(filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Errorf("the link of the resolver is gone: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(root, "dev/null")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the device: %v", err)
	}
}

func TestAFailedBuildTellsTheDecisiveLinesAndLeavesNothing(t *testing.T) {
	m, v := newManager(t)
	fakeTool(t, `mkdir "$6/etc"; echo "E: Unable to locate package nosuch" >&2; echo "E: mmdebstrap failed to run" >&2; exit 25`)
	_, err := m.Build(context.Background(), "one", BuildOptions{Suite: "bookworm"})
	var b *BuildError
	if !errors.Is(err, ErrPackage) || !errors.As(err, &b) {
		t.Fatalf("got %v, want ErrPackage", err)
	}
	if diff := cmp.Diff([]string{"E: Unable to locate package nosuch"}, b.Lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// busyBuild mounts something in the tree and starts a process in a session of
// its own that goes on writing.
const busyBuild = `
mkdir -p "$6/etc" "$6/mnt"
mount -t tmpfs none "$6/mnt"
setsid sh -c 'while :; do date >"$0/etc/date-'$$'"; sleep 0.01; done' "$6" &
until [ -e "$6/etc/date-$$" ]; do sleep 0.01; done
echo ready >"$6/etc/ready"
echo "I: ready" >&2
wait
sleep 1000
`

// stillWriting are the processes that have the directory in their command line.
func stillWriting(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err == nil && path != fmt.Sprintf("/proc/%d/cmdline", os.Getpid()) && strings.Contains(string(b), dir) {
			found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

func TestACancelledBuildEndsAllItsProcessesAndLeavesNothing(t *testing.T) {
	m, v := newManager(t)
	fakeTool(t, busyBuild)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var during []string
	m.Progress = func(what string) {
		if what == "ready" {
			during = stillWriting(t, v.root)
			if mounted := read(t, "/proc/self/mountinfo"); strings.Contains(mounted, v.root) {
				t.Error("the build's mounts are seen outside")
			}
			cancel()
		}
	}
	_, err := m.Build(ctx, "one", BuildOptions{Suite: "bookworm"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	if len(during) < 2 {
		t.Errorf("the build ran only %q", during)
	}
	if after := stillWriting(t, v.root); len(after) != 0 {
		t.Errorf("still running: %q", after)
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

const victimEnv = "CTCTL_TEST_TEMPLATE_VICTIM"

// victim is the process that the next test kills.
func victim(state string) {
	m := Manager{Dir: filepath.Join(state, "templates"), Volumes: &plainVolumes{root: filepath.Join(state, "volumes")}}
	_, err := m.Build(context.Background(), "one", BuildOptions{Suite: "bookworm"})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestABuildWhoseProcessIsKilledIsSweptAway(t *testing.T) {
	m, v := newManager(t)
	fakeTool(t, busyBuild)
	self, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), victimEnv+"="+filepath.Dir(m.Dir))
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	waitFor(t, func() bool {
		ready, err := filepath.Glob(filepath.Join(v.root, "*/etc/ready"))
		return err == nil && len(ready) == 1
	})
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	waitFor(t, func() bool { return len(stillWriting(t, v.root)) == 0 })
	if left := leftovers(t, m, v); len(left) < 3 {
		t.Errorf("only %v to sweep", left)
	}
	swept, err := m.Sweep(context.Background())
	must(t, err)
	if diff := cmp.Diff([]string{"one"}, swept); diff != "" {
		t.Errorf("swept (-want +got):\n%s", diff)
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !what(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen in 20 s")
		}
	}
}

func TestARealBuildOfAMinimalSystem(t *testing.T) {
	if os.Getenv("CTCTL_TEST_SLOW") != "1" {
		t.Skip("takes a minute and the network: set CTCTL_TEST_SLOW=1")
	}
	testutil.Require(t, testutil.Root, testutil.Tool("mmdebstrap"))
	m, v := newManager(t)
	ctx := context.Background()
	m.Progress = func(s string) { t.Log(s) }
	got, err := m.Build(ctx, "one", BuildOptions{Suite: "bookworm", Packages: []string{"systemd-sysv", "openssh-server"}})
	must(t, err)
	t.Logf("%+v", got)
	root := v.Path(got.Volume)
	if keys, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*")); err != nil || len(keys) != 0 {
		t.Errorf("host keys: %v, %v", keys, err)
	}
	if got.Init != "/sbin/init" || got.SizeBytes < 100<<20 || read(t, filepath.Join(root, "etc/machine-id")) != "" {
		t.Errorf("unexpected: %+v", got)
	}
	for _, dir := range []string{"var/lib/apt/lists", "var/cache/apt", "dev"} {
		must(t, filepath.WalkDir(filepath.Join(root, dir), func(path string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() && e.Type()&os.ModeSymlink == 0 && e.Name() != "lock" {
				t.Errorf("left: %s", path)
			}
			return err
		}))
	}
	must(t, m.Verify(ctx, "one"))
	_, err = m.Build(ctx, "two", BuildOptions{Suite: "bookworm", Packages: []string{"no-such-package"}})
	if !errors.Is(err, ErrPackage) || !strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("a package that does not exist: %v", err)
	}
	_, err = m.Build(ctx, "two", BuildOptions{Suite: "nosuchsuite"})
	if !errors.Is(err, ErrMirror) {
		t.Errorf("a suite that does not exist: %v", err)
	}
	must(t, m.Delete(ctx, "one"))
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
