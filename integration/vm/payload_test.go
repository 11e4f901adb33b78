//go:build vm

package vmrig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What is brought into the machines is on a disk with this serial number, which
// is mounted at payloadDir:
//
//	ctctl                     the executable
//	programs/                 what the tests would compile
//	tests/PACKAGE/            a package's test program and its testdata
//	cache/                    the root file system of the tests' containers
const (
	payloadSerial = "payload"
	payloadDir    = "/payload"
	payloadSize   = "2G"
)

// suites are the packages whose tests run in a machine.
var suites = []string{
	"integration", "quota", "netns", "storage/btrfs", "storage/dir", "internal/criu",
	"container", "checkpoint", "host",
}

const (
	tags   = "-tags=netgo osusergo seccomp"
	static = "-ldflags=-linkmode external -extldflags -static -s -w"
)

var thePayload = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	r, err := theRig()
	if err != nil {
		return "", err
	}
	root, err := SourceRoot(ctx)
	if err != nil {
		return "", err
	}
	p := payload{root: root, dir: filepath.Join(r.Dir, "payload")}
	if err := p.fill(ctx); err != nil {
		return "", err
	}
	return r.Disk(ctx, "payload.ext4", p.dir, payloadSize)
})

// payload is being put together in a directory.
type payload struct{ root, dir string }

func (p payload) fill(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(p.dir, "programs"), 0o755); err != nil {
		return err
	}
	ctctl := []string{"build", "-trimpath", "-buildvcs=false", tags, static, "-o", filepath.Join(p.dir, "ctctl"), "./cmd/ctctl"}
	if err := p.golang(ctx, "CGO_ENABLED=1", ctctl...); err != nil {
		return err
	}
	programs, err := filepath.Glob(filepath.Join(p.root, "integration", "testdata", "*", "main.go"))
	if err != nil {
		return err
	}
	for _, main := range programs {
		name := filepath.Base(filepath.Dir(main))
		build := []string{"build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(p.dir, "programs", name), "./integration/testdata/" + name}
		if err := p.golang(ctx, "CGO_ENABLED=0", build...); err != nil {
			return err
		}
	}
	for _, name := range suites {
		if err := p.suite(ctx, name); err != nil {
			return err
		}
	}
	return p.cache(ctx)
}

// suite compiles a package's tests, which run in their package's directory.
func (p payload) suite(ctx context.Context, name string) error {
	dir := filepath.Join(p.dir, "tests", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := p.golang(ctx, "CGO_ENABLED=1", "test", "-c", "-trimpath", tags, static, "-o", filepath.Join(dir, testProgram(name)), "./"+name); err != nil {
		return err
	}
	data := filepath.Join(p.root, name, "testdata")
	if _, err := os.Stat(data); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS(data))
}

// testProgram is how go test names it, which tests of process names rely on.
func testProgram(name string) string { return filepath.Base(name) + ".test" }

// cache brings the newest root file system of the tests' containers, and has it
// made where there is none.
func (p payload) cache(ctx context.Context) error {
	find := func() ([]string, error) { return filepath.Glob(filepath.Join(CacheDir(), "rootfs-*.tar")) }
	found, err := find()
	if err == nil && len(found) == 0 {
		err = p.golang(ctx, "CGO_ENABLED=1", "test", tags, "-count=1", "-run=^TestScenarios$/^exitcodes$", "./integration")
		if err == nil {
			found, err = find()
		}
	}
	if err != nil {
		return err
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(modified(a), modified(b)) })
	dir := filepath.Join(p.dir, "cache")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err = tool(ctx, "cp", "--reflink=auto", newest, dir)
	return err
}

func modified(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

func (p payload) golang(ctx context.Context, setting string, args ...string) error {
	cmd := outside(ctx, "go", args...)
	cmd.Dir = p.root
	cmd.Env = append(os.Environ(), setting)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// payloadDisk is the disk that brings what is tested.
func payloadDisk(t testing.TB) Disk {
	t.Helper()
	path, err := thePayload()
	if err != nil {
		t.Fatal(err)
	}
	return Disk{Path: path, Serial: payloadSerial}
}
