package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/undo"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
)

// CreateOptions says what to create; the zero value of each field is a default.
type CreateOptions struct {
	Template  string
	Command   []string // none: the template's init
	Hostname  string   // the name
	Addresses []netip.Prefix
	Auto      bool // give automatic addresses, v4 and v6, masqueraded to the outside
	Limits    quota.Limits
	UserNS    string // auto
	Profile   Profile
	Onboot    bool
	Restart   string
	Env       []string
	Workdir   string
	// NoProbe trusts that nobody else on the network has the addresses.
	NoProbe bool
	// Edit is called last, with the configuration that the rest makes.
	Edit func(*Config) error
}

// AutoNetwork is where automatic addresses come from: the container with the
// number n gets the n+1st address of each prefix.
type AutoNetwork struct {
	V4, V6 netip.Prefix
}

func (a AutoNetwork) addresses(ctid uint32) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{a.V4, a.V6} {
		if !p.IsValid() {
			continue
		}
		addr := p.Masked().Addr()
		b := addr.AsSlice()
		n := ctid + 1
		for i := len(b) - 1; n > 0 && i >= 0; i-- {
			n += uint32(b[i])
			b[i] = byte(n)
			n >>= 8
		}
		addr, _ = netip.AddrFromSlice(b) // as long as the slice it came from
		if !p.Contains(addr) {
			continue // the prefix is too small for the number
		}
		out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return out
}

// DefaultPIDs is the pids limit of a container that asks for none.
const DefaultPIDs = 4096

// Create makes a stopped container. Errors: ErrExists, ErrName, ErrConfig, the
// template's and the storage's.
func (m *Manager) Create(ctx context.Context, name string, o CreateOptions) (c Config, err error) {
	defer wrapOp("create", name, &err)
	if err := CheckName(name); err != nil {
		return c, err
	}
	src, err := m.Templates(ctx, o.Template)
	if err != nil {
		return c, err
	}
	if err := m.vacate(ctx, name); err != nil {
		return c, err
	}
	hostLock, err := statefile.WaitLock(ctx, filepath.Join(m.StateRoot, "host.lock"), "create "+name)
	if err != nil {
		return c, err
	}
	l, err := m.reserve(name, o, src)
	if err := errors.Join(err, hostLock.Unlock()); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, l.Unlock()) }()
	var undos undo.Stack
	undos.Push("remove the half-made container", func(ctx context.Context) error { return l.erase(ctx) })
	if err := l.fill(ctx, src, o.NoProbe); err != nil {
		if uerr := undos.Unwind(ctx); uerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrUndo, uerr))
		}
		return c, err
	}
	undos.Drop()
	return l.Config, nil
}

// vacate clears what an interrupted create or destroy left under the name, and
// answers ErrExists when it is a container's.
func (m *Manager) vacate(ctx context.Context, name string) error {
	if _, err := os.Lstat(m.configFile(name)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := m.Lock(ctx, name, "create")
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(ErrExists, l.Unlock())
}

// reserve takes the name and a number and records the intent. It runs under the
// host's lock.
func (m *Manager) reserve(name string, o CreateOptions, src Source) (*Locked, error) {
	ctid, taken, err := m.nextCTID()
	if err != nil {
		return nil, err
	}
	c := m.newConfig(name, ctid, o, src)
	if o.Edit != nil {
		if err := o.Edit(&c); err != nil {
			return nil, err
		}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := taken.refuse(c.Network); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(m.StateRoot, "containers"), 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.dir(name), 0o700); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := m.clearDebris(name); err != nil {
			return nil, err
		}
	}
	lock, err := statefile.TryLock(m.lockFile(name), "create")
	if err != nil {
		return nil, err
	}
	if err := m.emptyDebris(name); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	l := &Locked{Config: c, m: m, lock: lock}
	l.State = State{Volume: VolumeName(c.UID, 1), Generation: 1, Intent: &Intent{Op: "create", Started: time.Now().UTC()}}
	// The state goes first: a directory with a configuration always has both.
	err = l.SaveState()
	if err == nil {
		err = configSchema.Write(m.configFile(name), &c)
	}
	if err != nil {
		return nil, errors.Join(err, statefile.RemoveTree(m.dir(name)), lock.Unlock())
	}
	return l, nil
}

// clearDebris answers ErrExists, unless the directory is what a create left that
// was killed before it wrote a configuration.
func (m *Manager) clearDebris(name string) error {
	if _, err := os.Lstat(m.configFile(name)); err == nil {
		return ErrExists
	}
	half, err := m.halfMade(name)
	if err == nil && !half {
		err = fmt.Errorf("%w: but %s is missing", ErrExists, m.configFile(name))
	}
	return err // a half-made directory is taken over
}

// emptyDebris removes what an earlier container of the name left, but the lock.
func (m *Manager) emptyDebris(name string) error {
	entries, err := os.ReadDir(m.dir(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(m.dir(name), e.Name())
		if path == m.lockFile(name) {
			continue
		}
		if err := statefile.RemoveTree(path); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) newConfig(name string, ctid uint32, o CreateOptions, src Source) Config {
	c := Config{
		Name: name, UID: newUID(), CTID: ctid, Created: time.Now().UTC().Truncate(time.Second), Template: o.Template,
		Hostname: o.Hostname, Command: o.Command, Init: src.Init, Env: o.Env, Workdir: o.Workdir,
		UserNS: o.UserNS, Profile: o.Profile, Limits: o.Limits, Onboot: o.Onboot, Restart: o.Restart,
	}
	if c.Hostname == "" {
		c.Hostname = name
	}
	if c.UserNS == "" {
		c.UserNS = "auto"
	}
	if c.Limits.PIDs == 0 {
		c.Limits.PIDs = DefaultPIDs
	}
	first := netns.Interface{Name: "eth0", Addresses: o.Addresses, NAT: o.Auto}
	if o.Auto {
		first.Addresses = append(slices.Clone(o.Addresses), m.Network.addresses(ctid)...)
	}
	c.Network.Interfaces = []netns.Interface{first}
	return c
}

// nextCTID finds a free number, and what others have of the network.
func (m *Manager) nextCTID() (uint32, takenBy, error) {
	taken, err := m.taken("")
	if err != nil {
		return 0, taken, err
	}
	var last counter
	path := filepath.Join(m.StateRoot, "ctid.json")
	if err := counterSchema.Read(path, &last); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, taken, err
	}
	id, ok := nextFree(last.CTID, taken.ctids)
	if !ok {
		return 0, taken, fmt.Errorf("%w: %d containers are the most one host can have", ErrNoSupport, maxCTID)
	}
	return id, taken, counterSchema.Write(path, &counter{CTID: id})
}

// counter remembers the last number given. Numbers go round: what a destroyed
// container left charged to its quota group has long gone when it comes again.
type counter struct {
	CTID uint32 `json:"ctid"`
}

var counterSchema = statefile.Schema{Kind: "ctid", Version: 1}

func nextFree(last uint32, used map[uint32]bool) (uint32, bool) {
	for i := range uint32(maxCTID) {
		if id := (last+i)%maxCTID + 1; !used[id] {
			return id, true
		}
	}
	return 0, false
}

// VolumeName is the name of a container's nth root volume.
func VolumeName(uid string, generation int) string { return fmt.Sprintf("c-%s-%d", uid, generation) }

// fill makes the root volume and commits.
func (l *Locked) fill(ctx context.Context, src Source, noProbe bool) error {
	start := time.Now()
	c := l.Config
	if err := l.probe(ctx, change{to: c, noProbe: noProbe}); err != nil {
		return err
	}
	err := l.m.Volumes.Create(ctx, l.State.Volume, storage.CreateOptions{Origin: src.Volume, Group: uint64(c.CTID)})
	if err != nil {
		return fmt.Errorf("root volume: %w", err)
	}
	if err := l.SetDiskLimit(ctx); err != nil {
		return err
	}
	if err := identify(l.m.Volumes.Path(l.State.Volume), c); err != nil {
		return fmt.Errorf("write the host name: %w", err)
	}
	l.m.trace("create.volume", start)
	l.State.Intent = nil
	return l.SaveState()
}

// SetDiskLimit makes the storage hold what the configuration says.
func (l *Locked) SetDiskLimit(ctx context.Context) error {
	return l.setDiskLimit(ctx, l.Config.Limits.DiskBytes)
}

func (l *Locked) setDiskLimit(ctx context.Context, bytes int64) error {
	limiter, ok := l.m.Volumes.(storage.Limiter)
	if !ok {
		if bytes > 0 {
			return ErrNoDiskLimit
		}
		return nil
	}
	err := limiter.SetLimit(ctx, uint64(l.Config.CTID), bytes)
	if errors.Is(err, storage.ErrUnsupported) && bytes == 0 {
		return nil
	}
	if errors.Is(err, storage.ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrNoDiskLimit, err)
	}
	if err != nil {
		return fmt.Errorf("disk limit: %w", err)
	}
	return nil
}
