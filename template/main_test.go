package template

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/storage"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimEnv); dir != "" {
		victim(dir)
		return
	}
	testutil.Main(m)
}

// plainVolumes keeps volumes as directories, and can fail at any call.
type plainVolumes struct {
	root   string
	calls  int
	failAt int // the call that fails, 0 for none
}

var errInjected = errors.New("injected")

func (v *plainVolumes) call() error {
	v.calls++
	if v.calls == v.failAt {
		return errInjected
	}
	return nil
}

func (v *plainVolumes) Path(name string) string { return filepath.Join(v.root, name) }

func (v *plainVolumes) Create(_ context.Context, name string, _ storage.CreateOptions) error {
	if err := errors.Join(storage.CheckName(name), v.call()); err != nil {
		return err
	}
	return os.Mkdir(v.Path(name), 0o755)
}

func (v *plainVolumes) Snapshot(ctx context.Context, source, name string, _ uint64) (err error) {
	if err := errors.Join(storage.CheckName(name), v.call()); err != nil {
		return err
	}
	if err := os.Mkdir(v.Path(name), 0o755); err != nil {
		return err
	}
	src, err := openTop(v.Path(source))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := openTop(v.Path(name))
	if err != nil {
		return err
	}
	_, err = copyTree(ctx, dst, src, nil)
	return errors.Join(err, dst.Close())
}

func (v *plainVolumes) Delete(_ context.Context, name string) error {
	if err := v.call(); err != nil {
		return err
	}
	return statefile.RemoveTree(v.Path(name))
}

// newManager returns a manager with a state root of its own.
func newManager(t *testing.T) (Manager, *plainVolumes) {
	t.Helper()
	testutil.Require(t, testutil.Root)
	state := filepath.Join(testutil.TempDir(t), "state")
	v := &plainVolumes{root: filepath.Join(state, "volumes")}
	if err := os.MkdirAll(v.root, 0o700); err != nil {
		t.Fatal(err)
	}
	return Manager{Dir: filepath.Join(state, "templates"), Volumes: v}, v
}

// leftovers are the volumes, and the files of the metadata directory except
// locks.
func leftovers(t *testing.T, m Manager, v *plainVolumes) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{m.Dir, v.root} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) != lockSuffix {
				all = append(all, e.Name())
			}
		}
	}
	slices.Sort(all)
	return all
}

// writeTree makes files below dir; names that end in "/" are directories.
func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if name[len(name)-1] == '/' {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
}

// smallRoot is a directory that passes for a root file system.
func smallRoot(t *testing.T) string {
	t.Helper()
	dir := testutil.TempDir(t)
	writeTree(t, dir, map[string]string{"etc/hostname": "small\n", "usr/bin/": "", "usr/lib/systemd/systemd": "#!"})
	must(t, os.Chmod(filepath.Join(dir, "usr/lib/systemd/systemd"), 0o755))
	must(t, os.Symlink("usr/bin", filepath.Join(dir, "bin")))
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}
