package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/storage/btrfs"
	"github.com/ctctl/ctctl/storage/dir"
	"github.com/ctctl/ctctl/template"
)

const (
	DefaultStateRoot = "/var/lib/ctctl"
	DefaultRunRoot   = "/run/ctctl"
)

var (
	// ErrNotRoot: containers need root.
	ErrNotRoot = errors.New("must be run as root")
	// ErrRunRoot: the run root is another state root's. What runs of one would be
	// leftovers for the other.
	ErrRunRoot = errors.New("the run root belongs to another state root")
)

// Options says which host to open; the zero value is the machine's own.
type Options struct {
	StateRoot string // $CTCTL_STATE_ROOT, /var/lib/ctctl
	RunRoot   string // $CTCTL_RUN_ROOT, /run/ctctl
	CRIU      string // $CTCTL_CRIU, then where scripts/install-criu.sh puts it, then PATH
	Binary    string // executed as supervisor; the running executable
	Log       *slog.Logger
	Trace     func(phase string, d time.Duration)
	Progress  func(string) // what a long operation is doing
}

// Settings is STATE_ROOT/host.json: choices made once for a host.
type Settings struct {
	Storage   string       `json:"storage"` // btrfs or dir
	PoolBytes int64        `json:"poolBytes,omitempty"`
	AutoV4    netip.Prefix `json:"autoIPv4"`
	AutoV6    netip.Prefix `json:"autoIPv6"`
}

var settingsSchema = statefile.Schema{Kind: "host", Version: 1}

// Driver is what every storage driver offers.
type Driver interface {
	storage.Volumes
	storage.Lister
}

// The drivers offer what the managers assert.
var (
	_ Driver          = (*btrfs.Driver)(nil)
	_ storage.Limiter = (*btrfs.Driver)(nil)
	_ storage.Gauge   = (*btrfs.Driver)(nil)
	_ storage.Flusher = (*btrfs.Driver)(nil)
	_ Driver          = (*dir.Driver)(nil)
)

// Host is one machine's containers. Close it; what runs goes on.
type Host struct {
	Options     Options
	Settings    Settings
	Volumes     Driver
	Templates   *template.Manager
	Containers  *container.Manager
	Checkpoints *checkpoint.Manager
	CRIU        criu.Engine
	close       func() error
	detach      func(context.Context) error
}

// Open opens the host, making its state root when it is new.
func Open(ctx context.Context, o Options) (*Host, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	o = o.withDefaults()
	if err := errors.Join(makeRoot(o.StateRoot, 0o700), makeRoot(o.RunRoot, 0o711)); err != nil {
		return nil, err
	}
	if err := claimRunRoot(o.RunRoot, o.StateRoot); err != nil {
		return nil, err
	}
	h := &Host{Options: o}
	if err := h.settle(ctx); err != nil {
		return nil, err
	}
	engine, err := criu.Find(o.CRIU)
	switch {
	case errors.Is(err, criu.ErrNotInstalled), errors.Is(err, criu.ErrTooOld):
		engine.Unusable = err // everything but checkpoints works
	case err != nil:
		return nil, errors.Join(err, h.close())
	}
	engine.Log = o.Log
	h.CRIU = engine
	h.wire()
	return h, nil
}

func (o Options) withDefaults() Options {
	or := func(v, env, def string) string {
		if v != "" {
			return v
		}
		if e := os.Getenv(env); e != "" {
			return e
		}
		return def
	}
	o.StateRoot = absolute(or(o.StateRoot, "CTCTL_STATE_ROOT", DefaultStateRoot))
	o.RunRoot = absolute(or(o.RunRoot, "CTCTL_RUN_ROOT", DefaultRunRoot))
	return o
}

func absolute(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

// makeRoot makes a directory with that mode, whatever the umask; one that is
// there keeps its own.
func makeRoot(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// claimRunRoot makes a run root belong to one state root, until it is removed.
func claimRunRoot(run, state string) error {
	state, err := filepath.EvalSymlinks(state)
	if err != nil {
		return err
	}
	mark := filepath.Join(run, "state-root")
	owner, err := os.ReadFile(mark)
	switch {
	case err == nil && string(owner) == state:
		return nil
	case err == nil && len(owner) > 0:
		if _, err := os.Lstat(string(owner)); err == nil {
			return fmt.Errorf("%w: %s is that of %s", ErrRunRoot, run, owner)
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return os.WriteFile(mark, []byte(state), 0o600)
}

// settle reads host.json and opens the storage that it names. A new host gets the
// file only when its storage could be opened, so that a machine without btrfs has
// not chosen it for ever.
func (h *Host) settle(ctx context.Context) error {
	path := filepath.Join(h.Options.StateRoot, "host.json")
	err := settingsSchema.Read(path, &h.Settings)
	if err == nil {
		return h.openStorage(ctx)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lock, err := statefile.WaitLock(ctx, filepath.Join(h.Options.StateRoot, "host.lock"), "open")
	if err != nil {
		return err
	}
	err = settingsSchema.Read(path, &h.Settings)
	switch {
	case err == nil: // somebody else was first
		err = h.openStorage(ctx)
	case errors.Is(err, fs.ErrNotExist):
		h.Settings = newSettings()
		if err = h.openStorage(ctx); err == nil {
			// From here on its absence means that something is wrong.
			err = os.MkdirAll(filepath.Join(h.Options.StateRoot, "containers"), 0o700)
		}
		if err == nil {
			err = settingsSchema.Write(path, &h.Settings)
		}
	}
	return errors.Join(err, lock.Unlock())
}

func newSettings() Settings {
	return Settings{
		Storage: cmp.Or(os.Getenv("CTCTL_STORAGE"), "btrfs"),
		AutoV4:  netip.MustParsePrefix("10.157.0.0/16"),
		AutoV6:  netip.MustParsePrefix("fd9c:7c71:9d::/64"),
	}
}

func (h *Host) openStorage(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the storage: %w", err)
		}
	}()
	switch h.Settings.Storage {
	case "btrfs":
		d, err := btrfs.Open(ctx, btrfs.Options{Root: h.Options.StateRoot, PoolBytes: h.Settings.PoolBytes, Log: h.Options.Log})
		if err != nil {
			return err
		}
		h.Volumes, h.close, h.detach = d, d.Close, d.Detach
	case "dir":
		d, err := dir.Open(ctx, dir.Options{Root: h.Options.StateRoot})
		if err != nil {
			return err
		}
		h.Volumes, h.close, h.detach = d, d.Close, d.Detach
	default:
		return fmt.Errorf("%w: $CTCTL_STORAGE or storage in %s: %q is neither btrfs nor dir", storage.ErrUnsupported, filepath.Join(h.Options.StateRoot, "host.json"), h.Settings.Storage)
	}
	return nil
}

func (h *Host) wire() {
	o := h.Options
	h.Templates = &template.Manager{
		Dir: filepath.Join(o.StateRoot, "templates"), Volumes: h.Volumes, Log: o.Log, Progress: o.Progress,
	}
	h.Containers = &container.Manager{
		StateRoot: o.StateRoot, RunRoot: o.RunRoot, Volumes: h.Volumes, Templates: h.source, CRIU: h.CRIU, Binary: o.Binary,
		Network: container.AutoNetwork{V4: h.Settings.AutoV4, V6: h.Settings.AutoV6}, Log: o.Log, Trace: o.Trace,
	}
	h.Checkpoints = &checkpoint.Manager{
		StateRoot: o.StateRoot, Containers: h.Containers, CRIU: h.CRIU, Log: o.Log, Trace: o.Trace,
	}
	h.Containers.Settle, h.Containers.Needs = h.Checkpoints.Settlers(), h.Checkpoints.Needs
	h.Containers.Settle["destroy"] = h.Checkpoints.DeleteAll
}

func (h *Host) source(ctx context.Context, name string) (container.Source, error) {
	t, err := h.Templates.Get(ctx, name)
	return container.Source{Volume: t.Volume, Init: t.Init}, err
}

// Destroy removes a container with its snapshots.
func (h *Host) Destroy(ctx context.Context, name string, force bool) error {
	if err := h.Containers.Destroy(ctx, name, force, h.Checkpoints.DeleteAll); err != nil {
		return err
	}
	return quota.RemoveApart() // if it was the last one
}

// Close forgets the host. Containers go on, the pool stays mounted.
func (h *Host) Close() error { return h.close() }

// Detach unmounts the pool, for a host on which nothing runs.
func (h *Host) Detach(ctx context.Context) error {
	if err := h.detach(ctx); err != nil {
		return err
	}
	return quota.RemoveApart()
}
