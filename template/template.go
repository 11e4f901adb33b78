package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

// Manager makes, lists and removes the templates of one state root. It may be
// copied, and several processes may have one each.
type Manager struct {
	// Dir holds the metadata: STATE_ROOT/templates. Its parent is taken as the
	// state root, which is never imported.
	Dir     string
	Volumes storage.Volumes
	// Log gets warnings, nil discards them.
	Log *slog.Logger
	// Progress is told in a few words what is being done, nil for nobody. It
	// is called from another goroutine, but never twice at once.
	Progress func(string)
	// Limits bound what an archive may hold.
	Limits Limits
}

// Template is what is known of a published template.
type Template struct {
	Name string `json:"name"`
	// Suite and Packages are what was built; imported templates have none.
	Suite    string   `json:"suite,omitempty"`
	Packages []string `json:"packages,omitempty"`
	// Source is the path that was imported, or the apt source lines.
	Source string `json:"source"`
	// Digest is "sha256:" and 64 hexadecimal digits, see Digest.
	Digest string `json:"digest"`
	// SizeBytes is what the files occupy on disk.
	SizeBytes int64     `json:"sizeBytes"`
	Created   time.Time `json:"created"`
	// Init is the program to run as process 1, "" when there is none: then a
	// container needs a command.
	Init string `json:"init,omitempty"`
	// Volume is the read-only volume to create container roots from.
	Volume string `json:"volume"`
}

var metadata = statefile.Schema{Kind: "template", Version: 1}

const metadataSuffix = ".json"

// CheckName returns an error with ErrName when name can't be a template's.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 63
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && c == '-'
	}
	if !ok {
		return fmt.Errorf("%w, not %.80q", ErrName, name)
	}
	return nil
}

// Get returns one template. Errors: ErrName, ErrNotFound, and those of
// statefile.Schema.Read.
func (m Manager) Get(_ context.Context, name string) (t Template, err error) {
	defer wrapOp("get", name, &err)
	return m.read(name)
}

// List returns all templates, sorted by name. Those that can't be read are left
// out and make the error; the others are returned all the same.
func (m Manager) List(_ context.Context) ([]Template, error) {
	entries, err := os.ReadDir(m.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list templates: %w", err)
	}
	var all []Template
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), metadataSuffix)
		if !ok || CheckName(name) != nil {
			continue
		}
		t, err := m.read(name)
		switch {
		case err == nil:
			all = append(all, t)
		case !errors.Is(err, ErrNotFound): // deleted meanwhile
			errs = append(errs, fmt.Errorf("list template %q: %w", name, err))
		}
	}
	// Not the order of the files, where "a-b.json" comes before "a.json".
	slices.SortFunc(all, func(a, b Template) int { return strings.Compare(a.Name, b.Name) })
	return all, errors.Join(errs...)
}

// Delete removes a template. Containers that were created from it are
// independent copies and stay. Errors: ErrName, ErrNotFound,
// statefile.ErrBusy.
func (m Manager) Delete(ctx context.Context, name string) (err error) {
	defer wrapOp("delete", name, &err)
	d, err := m.lock(ctx, name, "delete")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.unlock()) }()
	t, err := m.read(name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.remove(context.WithoutCancel(ctx), t)
}

// Verify reads a template again and compares it with the digest that it was
// published with. Errors: ErrName, ErrNotFound, ErrDamaged.
func (m Manager) Verify(ctx context.Context, name string) (err error) {
	defer wrapOp("verify", name, &err)
	t, err := m.read(name)
	if err != nil {
		return err
	}
	digest, _, err := Digest(ctx, m.Volumes.Path(t.Volume))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	if digest != t.Digest {
		return fmt.Errorf("%w: digest is %s instead of %s", ErrDamaged, digest, t.Digest)
	}
	return nil
}

func (m Manager) read(name string) (Template, error) {
	if err := CheckName(name); err != nil {
		return Template{}, err
	}
	var t Template
	err := metadata.Read(m.file(name, metadataSuffix), &t)
	if errors.Is(err, fs.ErrNotExist) {
		return Template{}, ErrNotFound
	}
	if err != nil {
		return Template{}, err
	}
	if t.Name != name || storage.CheckName(t.Volume) != nil {
		return Template{}, fmt.Errorf("%s describes template %.80q with volume %.120q: %w",
			m.file(name, metadataSuffix), t.Name, t.Volume, statefile.ErrCorrupt)
	}
	return t, nil
}

func (m Manager) file(name, suffix string) string { return filepath.Join(m.Dir, name+suffix) }

func (m Manager) log() *slog.Logger {
	if m.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Log
}

func (m Manager) progress(what string) {
	if m.Progress != nil {
		m.Progress(what)
	}
}
