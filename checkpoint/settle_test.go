package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// shelf is a storage of plain directories; all that is in use is what it is told.
type shelf struct {
	dir  string
	used int64
}

func (s shelf) Path(name string) string { return filepath.Join(s.dir, name) }

func (s shelf) Create(_ context.Context, name string, o storage.CreateOptions) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return os.CopyFS(s.Path(name), os.DirFS(s.Path(o.Origin)))
}

func (s shelf) Snapshot(ctx context.Context, from, to string, _ uint64) error {
	return s.Create(ctx, to, storage.CreateOptions{Origin: from})
}

func (s shelf) Delete(_ context.Context, name string) error { return os.RemoveAll(s.Path(name)) }

func (s shelf) SetLimit(context.Context, uint64, int64) error { return nil }

func (s shelf) DeleteGroup(context.Context, uint64) error { return nil }

func (s shelf) Usage(context.Context, uint64) (storage.Usage, error) {
	return storage.Usage{Bytes: s.used}, nil
}

// shelved makes a stopped container "web1" that is without a network, and whose
// supervisors end at once.
func shelved(t *testing.T) (*Manager, *shelf) {
	t.Helper()
	testutil.Require(t, testutil.Root)
	dir := t.TempDir()
	s := &shelf{dir: filepath.Join(dir, "volumes")}
	if err := os.MkdirAll(filepath.Join(s.Path("base"), "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Manager{StateRoot: dir, Containers: &container.Manager{
		StateRoot: dir, RunRoot: filepath.Join(dir, "run"), Volumes: s, Binary: "/bin/false",
		Templates: func(context.Context, string) (container.Source, error) {
			return container.Source{Volume: "base", Init: "/sbin/init"}, nil
		},
	}}
	m.Containers.Settle, m.Containers.Needs = m.Settlers(), m.Needs
	if _, err := m.Containers.Create(t.Context(), "web1", container.CreateOptions{Template: "base"}); err != nil {
		t.Fatal(err)
	}
	return m, s
}

// snapshotOf takes a snapshot, which says that the container ran if asked to.
func (m *Manager) mustSnapshot(t *testing.T, name string, ran bool) Manifest {
	t.Helper()
	mf, err := m.Snapshot(t.Context(), "web1", SnapshotOptions{Name: name})
	if err == nil && ran {
		mf.Status = container.Running
		err = manifestSchema.Write(filepath.Join(m.dir(mf.UID, name), "manifest.json"), &mf)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mf
}

// interrupted leaves a container as a rollback to "s1" that was killed leaves it.
func (m *Manager) interrupted(t *testing.T, step string, wasUp bool) (volume string) {
	t.Helper()
	l, err := m.Containers.Lock(t.Context(), "web1", "test")
	if err != nil {
		t.Fatal(err)
	}
	volume = container.VolumeName(l.Config.UID, l.State.Generation+1)
	err = l.Begin(container.Intent{Op: "rollback", Step: step, Snapshot: "s1", Safety: "before", Volume: volume, WasUp: wasUp})
	if err := errors.Join(err, l.Unlock()); err != nil {
		t.Fatal(err)
	}
	return volume
}

// settled lets the next command settle it, and answers with what it finds.
func (m *Manager) settled(t *testing.T) (container.Info, error) {
	t.Helper()
	l, err := m.Containers.Lock(t.Context(), "web1", "test")
	if err == nil {
		err = l.Unlock()
	}
	info, ierr := m.Containers.Get(t.Context(), "web1")
	if ierr != nil {
		t.Fatal(ierr)
	}
	if info.State.Intent != nil {
		t.Errorf("not settled: %+v", info.State.Intent)
	}
	return info, err
}

// What a container has written that a rollback started anew is not taken back by
// the next command, whatever has become of the rollback and of init.
func TestWhatWasWrittenAfterAnInterruptedRollbackStays(t *testing.T) {
	m, s := shelved(t)
	m.mustSnapshot(t, "s1", true)
	m.mustSnapshot(t, "before", false)
	volume := m.interrupted(t, stepStarting, true)
	file := filepath.Join(s.Path(volume), "acknowledged")
	if err := errors.Join(os.MkdirAll(s.Path(volume), 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	info, err := m.settled(t)
	if err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.Path(info.State.Volume), "acknowledged")); err != nil || info.State.Current != "s1" {
		t.Errorf("at %s, on %s: %v", info.State.Current, info.State.Volume, err)
	}
}

// The step that says so is on disk before anything is started.
func TestARollbackSaysThatItStartsAnewBeforeItDoes(t *testing.T) {
	m, s := shelved(t)
	m.mustSnapshot(t, "s1", true)
	m.mustSnapshot(t, "before", true)
	m.interrupted(t, stepEnding, true)
	seen := filepath.Join(s.dir, "seen")
	script := "#!/bin/sh\ncat " + filepath.Join(m.StateRoot, "containers", "web1", "state.json") + " >>" + seen + "\n"
	m.Containers.Binary = filepath.Join(s.dir, "supervisor")
	if err := os.WriteFile(m.Containers.Binary, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := m.settled(t)
	var restore *RestoreError
	if !errors.As(err, &restore) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(seen); err != nil || !strings.Contains(string(b), `"step": "starting"`) {
		t.Errorf("%v\n%s", err, b)
	}
}

// A rollback that was killed while it committed, and then can't be finished, leaves
// the container the configuration that it had.
func TestARollbackThatGoesBackBringsTheConfigurationBack(t *testing.T) {
	m, s := shelved(t)
	pids := func(n int64) {
		t.Helper()
		edit := func(c *container.Config) error { c.Limits.PIDs = n; return nil }
		if _, err := m.Containers.Set(t.Context(), "web1", container.Change{Edit: edit}); err != nil {
			t.Fatal(err)
		}
	}
	pids(111)
	mf := m.mustSnapshot(t, "s1", false)
	pids(222)
	m.mustSnapshot(t, "before", false)
	pids(111) // as commitRollback has written it
	m.interrupted(t, stepReverting, false)
	if err := os.RemoveAll(s.Path(mf.Volume)); err != nil {
		t.Fatal(err)
	}
	info, err := m.settled(t)
	var restore *RestoreError
	if !errors.As(err, &restore) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if info.Config.Limits.PIDs != 222 {
		t.Errorf("it has the limits %s", info.Config.Limits)
	}
}

func TestARollbackToADiskLimitBelowWhatIsInUseIsRefused(t *testing.T) {
	m, s := shelved(t)
	disk := func(n int64) {
		t.Helper()
		edit := func(c *container.Config) error { c.Limits.DiskBytes = n; return nil }
		if _, err := m.Containers.Set(t.Context(), "web1", container.Change{Edit: edit}); err != nil {
			t.Fatal(err)
		}
	}
	disk(100 << 20)
	m.mustSnapshot(t, "s1", false)
	disk(400 << 20)
	s.used = 300 << 20
	before, err := os.ReadDir(m.StateRoot)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Rollback(t.Context(), "web1", "s1")
	if !errors.Is(err, quota.ErrBelowUsage) || !strings.Contains(err.Error(), "disk limit of 100M, and 300 MiB are in use") {
		t.Errorf("got %v", err)
	}
	list, _, lerr := m.List(t.Context(), "web1")
	after, derr := os.ReadDir(m.StateRoot)
	if err := errors.Join(lerr, derr); err != nil || len(list) != 1 || len(after) != len(before) {
		t.Errorf("it has left something: %v %v %v", list, after, err)
	}
	s.used = 50 << 20
	if _, err = m.Rollback(t.Context(), "web1", "s1"); err != nil {
		t.Error(err)
	}
}

// waiting makes the container suspended in an image of 64 MiB and two tasks.
func (m *Manager) waiting(t *testing.T) {
	t.Helper()
	l, err := m.Containers.Lock(t.Context(), "web1", "test")
	if err != nil {
		t.Fatal(err)
	}
	mf := m.newManifest(l, "suspend-1", container.Running)
	mf.Memory = true
	images := filepath.Join(m.dir(mf.UID, mf.Name), imagesDir)
	err = os.MkdirAll(images, 0o711)
	for name, size := range map[string]int64{"pages-1.img": 40 << 20, "pages-2.img": 24 << 20, "core-1.img": 9, "core-2.img": 9} {
		path := filepath.Join(images, name)
		err = errors.Join(err, os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
	}
	err = errors.Join(err, mf.seal(t.Context(), m.dir(mf.UID, mf.Name)))
	err = errors.Join(err, manifestSchema.Write(filepath.Join(m.dir(mf.UID, mf.Name), "manifest.json"), &mf))
	l.State.Suspended = mf.Name
	if err := errors.Join(err, l.SaveState(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
}

func TestLimitsInWhichASuspendedContainerCantComeBackAreRefused(t *testing.T) {
	m, _ := shelved(t)
	m.waiting(t)
	set := func(edit func(*quota.Limits)) error {
		_, err := m.Containers.Set(t.Context(), "web1", container.Change{Edit: func(c *container.Config) error {
			edit(&c.Limits)
			return nil
		}})
		return err
	}
	tests := []struct {
		name string
		edit func(*quota.Limits)
		want string // "": it is done
	}{
		{"memory", func(l *quota.Limits) { l.MemoryBytes = 66 << 20 }, "memory 66M is too little for the image that it is suspended in, which needs 71M"},
		{"memory that is enough", func(l *quota.Limits) { l.MemoryBytes = 80 << 20 }, ""},
		{"less of it", func(l *quota.Limits) { l.MemoryBytes = 60 << 20 }, "needs 71M"},
		{"memory with swap", func(l *quota.Limits) { l.MemoryBytes, l.SwapBytes = 60<<20, 64<<20 }, ""},
		{"memory-high", func(l *quota.Limits) { l.MemoryHighBytes = 30 << 20 }, "memory-high 30M is too little"},
		{"pids", func(l *quota.Limits) { l.PIDs = 1 }, "pids 1 is too little for the image that it is suspended in, which needs 2"},
		{"pids that are enough", func(l *quota.Limits) { l.PIDs = 2 }, ""},
		{"what does not matter", func(l *quota.Limits) { l.CPUs = 0.5 }, ""},
	}
	for _, tt := range tests {
		err := set(tt.edit)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (!errors.Is(err, quota.ErrBelowUsage) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

// Whoever has written such a limit into the file finds out before anything is tried.
func TestAResumeIsRefusedForLimitsThatItsImageExceeds(t *testing.T) {
	m, _ := shelved(t)
	m.waiting(t)
	info, err := m.Containers.Get(t.Context(), "web1")
	if err != nil {
		t.Fatal(err)
	}
	needs, err := m.Needs(&container.Locked{Config: info.Config, State: info.State})
	if err != nil || needs != (container.Needs{MemoryBytes: 64 << 20, Tasks: 2}) {
		t.Fatalf("%+v, %v", needs, err)
	}
	for _, tt := range []struct {
		limits quota.Limits
		want   error
	}{
		{quota.Limits{MemoryBytes: 63 << 20}, quota.ErrBelowUsage},
		{quota.Limits{PIDs: 1}, quota.ErrBelowUsage},
		{quota.Limits{MemoryBytes: 64 << 20, PIDs: 2}, nil},
		{quota.Limits{}, nil},
	} {
		if err := needs.Check(tt.limits); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v", tt.limits, err)
		}
	}
}

// One that can't be read is no reason to keep all the others for ever.
func TestSafetySnapshotsGoThoughOneIsDamaged(t *testing.T) {
	m, _ := shelved(t)
	mf := m.mustSnapshot(t, "s1", false)
	for range keepSafety + 2 {
		if _, err := m.Rollback(t.Context(), "web1", "s1"); err != nil {
			t.Fatal(err)
		}
		damaged := m.dir(mf.UID, "damaged")
		if err := errors.Join(os.MkdirAll(damaged, 0o700), os.WriteFile(filepath.Join(damaged, "manifest.json"), []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := m.List(t.Context(), "web1")
	if !errors.Is(err, ErrDamaged) || len(list) != keepSafety+1 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
}
