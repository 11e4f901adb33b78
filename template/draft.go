package template

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/storage"
)

const (
	draftSuffix = ".work"
	lockSuffix  = ".lock"
	tempSuffix  = ".tmp"
	// scratchSuffix is that of the directory for a build's temporary files.
	scratchSuffix = ".build" + tempSuffix
)

// intent is what NAME.work says: which volumes an operation makes or removes.
type intent struct {
	Op      string    `json:"op"`
	Volume  string    `json:"volume"`
	Started time.Time `json:"started"`
}

var intents = statefile.Schema{Kind: "template-work", Version: 1}

// draft is an operation on one name, whose lock it has.
type draft struct {
	m      Manager
	name   string
	volume string // the volume that is published or removed
	held   *statefile.Lock
}

// lock begins an operation and removes what an interrupted one left.
func (m Manager) lock(ctx context.Context, name, op string) (*draft, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, err
	}
	held, err := statefile.TryLock(m.file(name, lockSuffix), op+" template "+name)
	if err != nil {
		return nil, err
	}
	d := &draft{m: m, name: name, held: held}
	if err := d.sweep(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("clean up an interrupted operation: %w", err), d.unlock())
	}
	return d, nil
}

func (d *draft) unlock() error { return d.held.Unlock() }

// begin locks a name that must be free and makes its empty working volume. The
// caller ends it with end, whatever happens.
func (m Manager) begin(ctx context.Context, name, op string, needBytes int64) (*draft, error) {
	d, err := m.lock(ctx, name, op)
	if err != nil {
		return nil, err
	}
	if err := d.make(ctx, op, needBytes); err != nil {
		return nil, errors.Join(err, d.end(ctx, false))
	}
	return d, nil
}

func (d *draft) make(ctx context.Context, op string, needBytes int64) error {
	switch _, err := os.Lstat(d.m.file(d.name, metadataSuffix)); {
	case err == nil:
		return ErrExists
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if g, ok := d.m.Volumes.(storage.Gauge); ok {
		c, err := g.Capacity(ctx)
		if err != nil {
			return err
		}
		if err := storage.CheckRoom(c, needBytes); err != nil {
			return err
		}
	}
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	d.volume = "template-" + hex.EncodeToString(id)
	if err := d.intend(op); err != nil {
		return err
	}
	return d.m.Volumes.Create(ctx, d.working(), storage.CreateOptions{})
}

func (d *draft) intend(op string) error {
	return intents.Write(d.m.file(d.name, draftSuffix), intent{Op: op, Volume: d.volume, Started: time.Now().UTC()})
}

// working is the volume that is filled before it is published.
func (d *draft) working() string { return d.volume + draftSuffix }

// path is the directory of the working volume.
func (d *draft) path() string { return d.m.Volumes.Path(d.working()) }

// publish turns the working volume into a template. After success the rest of
// the working state is garbage.
func (d *draft) publish(ctx context.Context, t Template) (Template, error) {
	d.m.progress("publishing the volume")
	if f, ok := d.m.Volumes.(storage.Flusher); ok {
		if err := f.Flush(ctx, d.working()); err != nil {
			return Template{}, err
		}
	}
	if err := d.m.Volumes.Snapshot(ctx, d.working(), d.volume, 0); err != nil {
		return Template{}, err
	}
	d.m.progress("computing the digest")
	path := d.m.Volumes.Path(d.volume)
	var err error
	if t.Init, err = findInit(path); err != nil {
		return Template{}, err
	}
	if t.Digest, t.SizeBytes, err = Digest(ctx, path); err != nil {
		return Template{}, err
	}
	t.Name, t.Volume = d.name, d.volume
	t.Created = time.Now().UTC().Truncate(time.Second)
	if err := metadata.Write(d.m.file(d.name, metadataSuffix), t); err != nil {
		return Template{}, err
	}
	return t, nil
}

// end removes the working state and, unless the template was published, its
// volume too, and unlocks. What can't be removed after success is only logged:
// the template exists, and Sweep finds the rest.
func (d *draft) end(ctx context.Context, published bool) error {
	err := d.sweep(context.WithoutCancel(ctx))
	if err != nil && published {
		d.m.log().Warn("working volume was not removed", "op", "template", "template", d.name, "err", err)
		err = nil
	}
	return errors.Join(err, d.unlock())
}

// remove deletes a published template: first its name, then its volume.
func (d *draft) remove(ctx context.Context, t Template) error {
	d.volume = t.Volume
	if err := d.intend("delete"); err != nil {
		return err
	}
	if err := os.Remove(d.m.file(d.name, metadataSuffix)); err != nil {
		return err
	}
	// Else a power cut could bring back the name of a deleted volume.
	if err := statefile.SyncDir(d.m.Dir); err != nil {
		return err
	}
	return d.sweep(ctx)
}

// sweep removes whatever an operation on the name left, except the volume that
// its metadata names.
func (d *draft) sweep(ctx context.Context) error {
	if err := d.sweepFiles(); err != nil {
		return err
	}
	var in intent
	err := intents.Read(d.m.file(d.name, draftSuffix), &in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && storage.CheckName(in.Volume) != nil {
		err = fmt.Errorf("%s names volume %.120q: %w", d.m.file(d.name, draftSuffix), in.Volume, statefile.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	garbage := []string{in.Volume + draftSuffix}
	switch t, err := d.m.read(d.name); {
	case errors.Is(err, ErrNotFound), err == nil && t.Volume != in.Volume:
		garbage = append(garbage, in.Volume)
	case err != nil: // unreadable: it may name the volume
		return err
	}
	for _, v := range garbage {
		if err := d.m.Volumes.Delete(ctx, v); err != nil {
			return err
		}
	}
	return os.Remove(d.m.file(d.name, draftSuffix))
}

// sweepFiles removes the temporary files NAME.*.tmp; names have no dot.
func (d *draft) sweepFiles() error {
	entries, err := os.ReadDir(d.m.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), d.name+".") && strings.HasSuffix(e.Name(), tempSuffix) {
			if err := statefile.RemoveTree(filepath.Join(d.m.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sweep removes what interrupted operations left and returns the names of the
// templates that they were about. Operations that are going on are left alone.
// It goes on after an error.
func (m Manager) Sweep(ctx context.Context) (swept []string, err error) {
	entries, err := os.ReadDir(m.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sweep templates: %w", err)
	}
	seen := map[string]bool{}
	var errs []error
	for _, e := range entries {
		name, rest, _ := strings.Cut(e.Name(), ".")
		left := "."+rest == draftSuffix || strings.HasSuffix(rest, tempSuffix)
		if !left || seen[name] || CheckName(name) != nil {
			continue
		}
		seen[name] = true
		d, err := m.lock(ctx, name, "sweep") // sweeps
		if err == nil {
			err = d.unlock()
		}
		switch {
		case err == nil:
			swept = append(swept, name)
		case !errors.Is(err, statefile.ErrBusy):
			errs = append(errs, fmt.Errorf("sweep template %q: %w", name, err))
		}
	}
	return swept, errors.Join(errs...)
}
