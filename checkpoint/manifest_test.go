package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ctctl/ctctl/internal/criu"
)

// sealed makes a published image with two files.
func sealed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "0123456789abcdef", "a")
	images := filepath.Join(dir, imagesDir)
	if err := os.MkdirAll(images, 0o711); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"core-1.img": "registers", "pages-1.img": "memory", "dump.log": "talk", "stats-dump.img": "times"} {
		write(t, filepath.Join(images, name), text)
	}
	mf := Manifest{Name: "a", UID: "0123456789abcdef", Memory: true}
	mf.Config.UID = mf.UID
	if err := mf.seal(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	if err := manifestSchema.Write(filepath.Join(dir, "manifest.json"), &mf); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASealedImageVerifies(t *testing.T) {
	mf, err := verify(context.Background(), sealed(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(mf.Files) != 2 || mf.SizeBytes() != int64(len("registers")+len("memory")) {
		t.Errorf("logs and statistics are no part of an image, the manifest has %+v", mf.Files)
	}
}

func TestWhatDiffersFromTheManifestIsRefused(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, dir string){
		"a byte changed": func(t *testing.T, dir string) { write(t, filepath.Join(dir, imagesDir, "pages-1.img"), "memorY") },
		"a byte more":    func(t *testing.T, dir string) { write(t, filepath.Join(dir, imagesDir, "pages-1.img"), "memory!") },
		"a file missing": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, imagesDir, "core-1.img")) },
		"a file more":    func(t *testing.T, dir string) { write(t, filepath.Join(dir, imagesDir, "core-2.img"), "x") },
		"a symlink": func(t *testing.T, dir string) {
			remove(t, filepath.Join(dir, imagesDir, "core-1.img"))
			if err := os.Symlink("/etc/passwd", filepath.Join(dir, imagesDir, "core-1.img")); err != nil {
				t.Fatal(err)
			}
		},
		"a manifest that is no JSON": func(t *testing.T, dir string) { write(t, filepath.Join(dir, "manifest.json"), "{") },
		"a manifest that names a path": func(t *testing.T, dir string) {
			mf, err := readManifest(dir)
			if err != nil {
				t.Fatal(err)
			}
			mf.Files[0].Name = "../manifest.img"
			if err := manifestSchema.Write(filepath.Join(dir, "manifest.json"), &mf); err != nil {
				t.Fatal(err)
			}
		},
		"a manifest of another container": respell(func(m *Manifest) { m.UID = "fedcba9876543210" }),
		"a manifest of another snapshot":  respell(func(m *Manifest) { m.Name = "b" }),
		"a volume of another container":   respell(func(m *Manifest) { m.Volume = "s-fedcba9876543210-1" }),
		"a manifest without files": func(t *testing.T, dir string) {
			if err := manifestSchema.Write(filepath.Join(dir, "manifest.json"), &Manifest{Memory: true}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sealed(t)
			damage(t, dir)
			if _, err := verify(context.Background(), dir); err == nil {
				t.Error("it verifies")
			} else if name != "a symlink" && !errors.Is(err, ErrDamaged) {
				t.Errorf("want ErrDamaged, got %v", err)
			}
		})
	}
}

// respell changes what the manifest says.
func respell(change func(*Manifest)) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		mf, err := readManifest(dir)
		if err != nil {
			t.Fatal(err)
		}
		change(&mf)
		if err := manifestSchema.Write(filepath.Join(dir, "manifest.json"), &mf); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestAManifestOfANewerVersionIsForeign(t *testing.T) {
	dir := sealed(t)
	write(t, filepath.Join(dir, "manifest.json"), `{"kind":"checkpoint","version":99,"data":{}}`)
	if _, err := verify(context.Background(), dir); !errors.Is(err, ErrForeign) {
		t.Errorf("want ErrForeign, got %v", err)
	}
}

func TestNoManifestMeansNoSnapshot(t *testing.T) {
	if _, err := verify(context.Background(), t.TempDir()); !errors.Is(err, ErrNotFound) {
		t.Errorf("want ErrNotFound, got %v", err)
	}
}

func TestSnapshotNamesCannotBeMistakenForAnythingElse(t *testing.T) {
	for _, good := range []string{"a", "before-20260101-120000.123", "2026", "x_y.z"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".a", "..", "a/b", "A", "a.tmp", "suspend-1", "a b", "-a", "a\x00"} {
		if err := CheckName(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: want ErrName, got %v", bad, err)
		}
	}
}

func TestAnImageOfANewerCRIUIsOlderHere(t *testing.T) {
	for _, tt := range []struct {
		here  criu.Version
		there string
		older bool
	}{
		{criu.Version{Major: 4, Minor: 2, Sublevel: 1}, "4.2.1", false},
		{criu.Version{Major: 4, Minor: 2}, "4.2.1", true},
		{criu.Version{Major: 4, Minor: 10}, "4.9", false},
		{criu.Version{Major: 4, Minor: 2}, "4.2", false},
	} {
		got, err := olderCRIU(tt.here, tt.there)
		if err != nil || got != tt.older {
			t.Errorf("%+v: got %v, %v", tt, got, err)
		}
	}
	if _, err := olderCRIU(criu.MinVersion, "new"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a version that is none: %v", err)
	}
}

func TestATaskMayHaveLessButNotMoreThanTheContainer(t *testing.T) {
	good := criu.TaskCreds{PID: 5, TID: 5, Permitted: 0b11, Effective: 0b11, Bounding: 0b111, Seccomp: criu.SeccompFilter, NoNewPrivs: true}
	if err := checkTask(good, 0b111, true); err != nil {
		t.Errorf("a good task is refused: %v", err)
	}
	for name, spoil := range map[string]func(*criu.TaskCreds){
		"bounding":      func(c *criu.TaskCreds) { c.Bounding = 0b1111 },
		"permitted":     func(c *criu.TaskCreds) { c.Permitted = 0b1000 },
		"effective":     func(c *criu.TaskCreds) { c.Effective = 0b1000 },
		"inheritable":   func(c *criu.TaskCreds) { c.Inheritable = 0b1000 },
		"ambient":       func(c *criu.TaskCreds) { c.Ambient = 0b1000 },
		"no filter":     func(c *criu.TaskCreds) { c.Seccomp = criu.SeccompDisabled },
		"strict filter": func(c *criu.TaskCreds) { c.Seccomp = criu.SeccompStrict },
		"privileges":    func(c *criu.TaskCreds) { c.NoNewPrivs = false },
	} {
		c := good
		spoil(&c)
		if checkTask(c, 0b111, true) == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}
