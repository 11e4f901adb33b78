package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sys/unix"
)

// Manifest describes an image: snapshots/UID/NAME/manifest.json beside the
// directory images.
type Manifest struct {
	Name    string    `json:"name"`
	UID     string    `json:"uid"` // of the container
	Created time.Time `json:"created"`
	Message string    `json:"message,omitempty"`
	Parent  string    `json:"parent,omitempty"` // the snapshot the container was at
	Safety  bool      `json:"safety,omitempty"` // made by a rollback, to go back

	Status container.Status `json:"status"`           // when it was taken
	Memory bool             `json:"memory"`           // has processes
	Volume string           `json:"volume,omitempty"` // the storage snapshot; a suspended container's image has one only where it needs it
	Config container.Config `json:"config"`           // as it was
	// Overlay is what was changed for that run only.
	Overlay []container.Layer `json:"overlay,omitempty"`

	Runtime json.RawMessage `json:"runtime,omitempty"` // libcontainer's description, opaque
	Cgroups json.RawMessage `json:"cgroups,omitempty"` // of older images, of no use; see container.CgroupFile
	Files   []File          `json:"files,omitempty"`
	Kernel  string          `json:"kernel,omitempty"`
	CRIU    string          `json:"criu,omitempty"`
	Frozen  time.Duration   `json:"frozenNs,omitempty"` // how long the container stood still
	Pages   uint64          `json:"pages,omitempty"`    // of memory, written
	// Tries is how many dumps it took, Retried why those before the last failed.
	Tries   int      `json:"tries,omitempty"`
	Retried []string `json:"retried,omitempty"`
}

// File is one image file. The digest of a file of up to 16 MiB is that of its
// content; of a larger one it is the SHA-256 of the SHA-256 sums, 32 bytes each,
// of its 16 MiB chunks, which can be taken in parallel.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// SizeBytes is the size of the memory image.
func (m Manifest) SizeBytes() (n int64) {
	for _, f := range m.Files {
		n += f.Bytes
	}
	return n
}

var manifestSchema = statefile.Schema{Kind: "checkpoint", Version: 1}

const imagesDir = "images"

// seal lists and digests the image files below dir. Logs and statistics are not
// part of an image.
func (m *Manifest) seal(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(filepath.Join(dir, imagesDir))
	if err != nil {
		return err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && isImage(e.Name()) {
			names = append(names, e.Name())
		}
	}
	m.Files, err = digests(ctx, filepath.Join(dir, imagesDir), names)
	return err
}

func isImage(name string) bool { return filepath.Ext(name) == ".img" && name != "stats-dump.img" }

// verify reads a manifest and checks every image file against it. The error is
// ErrNotFound, ErrDamaged or ErrForeign.
func verify(ctx context.Context, dir string) (Manifest, error) {
	m, err := readManifest(dir)
	if err != nil || !m.Memory {
		return m, err
	}
	var names []string
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) || !isImage(f.Name) {
			return m, fmt.Errorf("%w: %s: the manifest names %q", ErrDamaged, dir, f.Name)
		}
		names = append(names, f.Name)
	}
	if len(names) == 0 {
		return m, fmt.Errorf("%w: %s: the manifest names no files", ErrDamaged, dir)
	}
	got, err := digests(ctx, filepath.Join(dir, imagesDir), names)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return m, err
	}
	for i, f := range m.Files {
		if got[i] != f {
			return m, fmt.Errorf("%w: %s differs from its manifest", ErrDamaged, filepath.Join(dir, imagesDir, f.Name))
		}
	}
	return m, extraFiles(dir, names)
}

// extraFiles refuses image files the manifest does not name: CRIU would read them.
func extraFiles(dir string, names []string) error {
	entries, err := os.ReadDir(filepath.Join(dir, imagesDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isImage(e.Name()) && !slices.Contains(names, e.Name()) {
			return fmt.Errorf("%w: %s is not in the manifest", ErrDamaged, filepath.Join(dir, imagesDir, e.Name()))
		}
	}
	return nil
}

func readManifest(dir string) (Manifest, error) {
	var m Manifest
	err := manifestSchema.Read(filepath.Join(dir, "manifest.json"), &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, ErrNotFound
	case errors.Is(err, statefile.ErrNewer):
		return m, fmt.Errorf("%w: %w", ErrForeign, err)
	case err != nil:
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := m.belongs(dir); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// belongs checks that a manifest speaks of the directory that it lies in: names
// in it say what is restored and deleted.
func (m Manifest) belongs(dir string) error {
	name, uid := strings.TrimSuffix(filepath.Base(dir), ".tmp"), filepath.Base(filepath.Dir(dir))
	if m.Name != name || m.UID != uid || m.Config.UID != uid || m.Volume != "" && !container.OwnsVolume(m.Volume, uid) {
		return fmt.Errorf("%w: %s holds the manifest of another image", ErrDamaged, dir)
	}
	return nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
