package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

func TestNamesAreCheckedBeforeAnythingIsTouched(t *testing.T) {
	for _, name := range []string{"a", "0", "debian-12", strings.Repeat("x", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v", name, err)
		}
	}
	m, _ := newManager(t)
	ctx := context.Background()
	for _, name := range []string{"", "-a", "A", "a.b", "a_b", "a/b", "..", "a\x00", strings.Repeat("x", 64)} {
		_, build := m.Build(ctx, name, BuildOptions{Suite: "bookworm"})
		_, imported := m.Import(ctx, name, "/")
		_, get := m.Get(ctx, name)
		for op, err := range map[string]error{
			"build": build, "import": imported, "get": get,
			"delete": m.Delete(ctx, name), "verify": m.Verify(ctx, name),
		} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%s %q: got %v, want ErrName", op, name, err)
			}
		}
	}
	if _, err := os.Lstat(m.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused name made the directory: %v", err)
	}
}

func TestATemplateCanBeFoundUntilItIsDeleted(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	var want []Template
	for _, name := range []string{"a", "a-b", "b"} {
		made, err := m.Import(ctx, name, smallRoot(t))
		must(t, err)
		want = append(want, made)
	}
	got, err := m.List(ctx)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-made +listed):\n%s", diff)
	}
	one, err := m.Get(ctx, "a-b")
	must(t, err)
	if diff := cmp.Diff(want[1], one); diff != "" {
		t.Errorf("Get (-made +got):\n%s", diff)
	}
	must(t, m.Verify(ctx, "a-b"))
	must(t, m.Delete(ctx, "a-b"))
	for op, err := range map[string]error{"delete": m.Delete(ctx, "a-b"), "verify": m.Verify(ctx, "a-b")} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of a deleted one: got %v, want ErrNotFound", op, err)
		}
	}
	if diff := cmp.Diff([]string{"a.json", "b.json", want[0].Volume, want[2].Volume}, leftovers(t, m, v), sorted); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestAnUnreadableTemplateDoesNotHideTheOthers(t *testing.T) {
	m, _ := newManager(t)
	ctx := context.Background()
	_, err := m.Import(ctx, "good", smallRoot(t))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(m.Dir, "bad.json"), []byte("{"), 0o600))
	got, err := m.List(ctx)
	if len(got) != 1 || got[0].Name != "good" {
		t.Errorf("List = %v", got)
	}
	if !errors.Is(err, statefile.ErrCorrupt) || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("got %v, want ErrCorrupt that names the template", err)
	}
}

func TestMetadataThatWasCopiedToAnotherNameIsRefused(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	made, err := m.Import(ctx, "one", smallRoot(t))
	must(t, err)
	b := read(t, filepath.Join(m.Dir, "one.json"))
	must(t, os.WriteFile(filepath.Join(m.Dir, "two.json"), []byte(b), 0o600))
	if err := m.Delete(ctx, "two"); !errors.Is(err, statefile.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
	if _, err := os.Stat(v.Path(made.Volume)); err != nil {
		t.Errorf("the volume of the other template is gone: %v", err)
	}
}

func TestVerifyFindsAChangedAndAMissingVolume(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	made, err := m.Import(ctx, "one", smallRoot(t))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(v.Path(made.Volume), "etc/hostname"), []byte("other"), 0o644))
	if err := m.Verify(ctx, "one"); !errors.Is(err, ErrDamaged) {
		t.Errorf("changed: got %v, want ErrDamaged", err)
	}
	must(t, os.RemoveAll(v.Path(made.Volume)))
	if err := m.Verify(ctx, "one"); !errors.Is(err, ErrDamaged) {
		t.Errorf("missing: got %v, want ErrDamaged", err)
	}
	must(t, m.Delete(ctx, "one"))
}

func TestAnExistingNameIsNotReplaced(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	_, err := m.Import(ctx, "one", smallRoot(t))
	must(t, err)
	before := leftovers(t, m, v)
	if _, err := m.Import(ctx, "one", smallRoot(t)); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if diff := cmp.Diff(before, leftovers(t, m, v)); diff != "" {
		t.Errorf("something changed (-before +after):\n%s", diff)
	}
	must(t, m.Verify(ctx, "one"))
}

func TestANameIsBusyWhileItIsMadeAndSweepKeepsAway(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	d, err := m.begin(ctx, "one", "build", 0)
	must(t, err)
	before := leftovers(t, m, v)
	if _, err := m.Import(ctx, "one", smallRoot(t)); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("import: got %v, want ErrBusy", err)
	}
	if err := m.Delete(ctx, "one"); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("delete: got %v, want ErrBusy", err)
	}
	if swept, err := m.Sweep(ctx); err != nil || len(swept) != 0 {
		t.Errorf("Sweep = %v, %v", swept, err)
	}
	if diff := cmp.Diff(before, leftovers(t, m, v)); diff != "" {
		t.Errorf("something changed (-before +after):\n%s", diff)
	}
	if list, err := m.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("List shows what is being made: %v, %v", list, err)
	}
	must(t, d.end(ctx, false))
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// Whatever call fails, either the template is there and whole or nothing is,
// at the latest after a sweep.
func TestAFailureOfAnyStorageCallLeavesNothingHalf(t *testing.T) {
	for failAt := 1; ; failAt++ {
		m, v := newManager(t)
		v.failAt = failAt
		ctx := context.Background()
		_, err := m.Import(ctx, "one", smallRoot(t))
		if v.calls < failAt {
			if failAt < 4 {
				t.Fatalf("an import makes only %d storage calls", v.calls)
			}
			return
		}
		v.failAt = 0
		_, swept := m.Sweep(ctx)
		must(t, swept)
		list, listed := m.List(ctx)
		must(t, listed)
		if err == nil {
			must(t, m.Verify(ctx, "one"))
			must(t, m.Delete(ctx, "one"))
		} else if len(list) != 0 {
			t.Errorf("call %d: it failed with %v, but the template is there", failAt, err)
		}
		if left := leftovers(t, m, v); len(left) != 0 {
			t.Errorf("call %d: left %v", failAt, left)
		}
	}
}

func TestADeletionThatWasInterruptedIsFinished(t *testing.T) {
	for _, failAt := range []int{1, 2} {
		t.Run(fmt.Sprint(failAt), func(t *testing.T) {
			m, v := newManager(t)
			ctx := context.Background()
			_, err := m.Import(ctx, "one", smallRoot(t))
			must(t, err)
			v.calls, v.failAt = 0, failAt
			if err := m.Delete(ctx, "one"); !errors.Is(err, errInjected) {
				t.Fatalf("Delete = %v", err)
			}
			v.failAt = 0
			if _, err := m.Get(ctx, "one"); !errors.Is(err, ErrNotFound) {
				t.Errorf("Get = %v, want ErrNotFound", err)
			}
			swept, err := m.Sweep(ctx)
			must(t, err)
			if diff := cmp.Diff([]string{"one"}, swept); diff != "" {
				t.Errorf("swept (-want +got):\n%s", diff)
			}
			if left := leftovers(t, m, v); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestACrashAfterPublishingKeepsTheTemplate(t *testing.T) {
	m, v := newManager(t)
	ctx := context.Background()
	d, err := m.begin(ctx, "one", "import", 0)
	must(t, err)
	writeTree(t, d.path(), map[string]string{"etc/": ""})
	_, err = d.publish(ctx, Template{Source: "test"})
	must(t, err)
	must(t, d.unlock()) // as the kernel does for a process that dies
	_, err = m.Sweep(ctx)
	must(t, err)
	must(t, m.Verify(ctx, "one"))
	if diff := cmp.Diff([]string{"one.json", d.volume}, leftovers(t, m, v)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestSweepTouchesNothingThatIsNotItsOwn(t *testing.T) {
	m, v := newManager(t)
	writeTree(t, m.Dir, map[string]string{
		"One.work": "x", "one.json": "{", "notes.txt": "x", ".hidden.tmp": "x", "one.json.12.tmp": "x", "two.build.tmp/x": "x",
	})
	writeTree(t, v.root, map[string]string{"template-0123456789abcdef.work/x": "x"})
	swept, err := m.Sweep(context.Background())
	must(t, err)
	if diff := cmp.Diff([]string{"one", "two"}, swept); diff != "" {
		t.Errorf("swept (-want +got):\n%s", diff)
	}
	want := []string{".hidden.tmp", "One.work", "notes.txt", "one.json", "template-0123456789abcdef.work"}
	if diff := cmp.Diff(want, leftovers(t, m, v)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// smallStore has a capacity that is not enough for anything.
type smallStore struct{ *plainVolumes }

func (smallStore) Capacity(context.Context) (storage.Capacity, error) {
	return storage.Capacity{TotalBytes: 1 << 30, FreeBytes: 60 << 20}, nil
}

func TestAStoreWithoutRoomRefusesBeforeTheBuildBegins(t *testing.T) {
	m, v := newManager(t)
	m.Volumes = smallStore{v}
	fakeTool(t, "exit 0")
	_, err := m.Build(context.Background(), "one", BuildOptions{Suite: "bookworm"})
	if !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	if left := leftovers(t, m, v); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
