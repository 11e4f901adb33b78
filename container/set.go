package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/undo"
)

// Scope says how long a change lasts.
type Scope int

const (
	// Saved changes are in the configuration from then on.
	Saved Scope = iota
	// Runtime changes are forgotten at the next start.
	Runtime
)

// Change is what Set does.
type Change struct {
	// Edit changes a configuration. It is called with copies: with the saved one,
	// and with the one in effect where that is another, and does the same to both.
	Edit  func(*Config) error
	Scope Scope
	// For takes a Runtime change back after a while, by itself; 0 does not.
	For time.Duration
	// NoProbe trusts that nobody else on the network has a new address.
	NoProbe bool
}

// Changed says what Set did.
type Changed struct {
	// Before and After are the configuration that was and is in effect.
	Before, After Config
	Status        Status
	// AtRestart are the fields whose change waits for the next start.
	AtRestart []string
	// Notes say what this host makes of changed limits, where that is not what
	// their names promise, and was not so before.
	Notes []string
	// Until is when the change is taken back; zero is never, or with Runtime at
	// the next start.
	Until time.Time
}

// Set changes a container, whatever it is doing: what runs follows at once,
// without noticing more of it than it must. All of a change is done or, on an
// error, nothing, in the kernel and in the configuration.
//
// Errors: ErrConfig, ErrTaken, ErrState (Runtime of one that is stopped, files of
// one that is suspended), quota.ErrBadLimit, ErrBelowUsage and ErrUnsupported,
// those of netns.
func (m *Manager) Set(ctx context.Context, name string, ch Change) (done Changed, err error) {
	err = m.with(ctx, "set", name, func(l *Locked) (err error) {
		done, err = l.set(ctx, ch)
		return err
	})
	return done, err
}

// change is a Change that has been thought through.
type change struct {
	status   Status
	run      *Run
	from, to Config  // in effect
	saved    Config  // to be
	overlay  []Layer // to be
	noProbe  bool
}

func (l *Locked) set(ctx context.Context, ch Change) (done Changed, err error) {
	c, until, err := l.think(ch)
	if err != nil {
		return done, err
	}
	done = Changed{Before: c.from, After: c.to, Status: c.status, Until: until}
	if c.up() {
		done.AtRestart = waiting(c.from, c.to)
	}
	if err := l.carryOut(ctx, c); err != nil {
		return Changed{}, err
	}
	if !c.from.Limits.Equal(c.to.Limits) {
		if g, err := l.Group(); err == nil { // it is done, whatever can be said about it
			before := g.Notes(c.from.Limits)
			done.Notes = slices.DeleteFunc(g.Notes(c.to.Limits), func(n string) bool { return slices.Contains(before, n) })
		}
	}
	return done, nil
}

func (c change) up() bool { return c.status == Running || c.status == Paused }

// think makes the configurations and checks all that can be known without asking
// anybody.
func (l *Locked) think(ch Change) (c change, until time.Time, err error) {
	if c.status, c.run, err = l.Status(); err != nil {
		return c, until, err
	}
	c.from, c.saved, c.overlay, c.noProbe = l.Effective(), l.Config, l.State.Overlay, ch.NoProbe
	if ch.For > 0 {
		until = time.Now().UTC().Add(ch.For)
	}
	if ch.Scope == Runtime {
		err = l.thinkRuntime(&c, ch, until)
	} else {
		err = l.thinkSaved(&c, ch)
	}
	if err != nil {
		return c, until, err
	}
	if c.to, err = overlaid(c.saved, c.overlay); err != nil {
		return c, until, err
	}
	if err := errors.Join(unchangeable(l.Config, c.saved), c.saved.Validate()); err != nil {
		return c, until, err
	}
	if err := c.to.Validate(); err != nil {
		return c, until, err
	}
	return c, until, errors.Join(c.ends(), c.fits())
}

// ends refuses what could not stay when a change under it is taken back, such as
// swap beyond a memory limit that is there for an hour.
func (c change) ends() error {
	for _, y := range c.overlay {
		if y.Until.IsZero() {
			continue
		}
		then, err := overlaid(c.saved, lasting(c.overlay, y.Until))
		if err == nil {
			err = then.Validate()
		}
		if err != nil {
			return fmt.Errorf("when a change is taken back at %s: %w", y.Until.Local().Format(time.DateTime), err)
		}
	}
	return nil
}

// thinkSaved: what is saved last holds, so that nothing of an unsaved change hides it.
func (l *Locked) thinkSaved(c *change, ch Change) (err error) {
	if ch.For != 0 {
		return fmt.Errorf("%w: a saved change has no end", ErrConfig)
	}
	if c.saved, err = edited(l.Config, ch.Edit); err != nil || len(c.overlay) == 0 {
		return err
	}
	inEffect, err := edited(c.from, ch.Edit)
	if err != nil { // such as an address that is there for a while already
		inEffect = c.from
	}
	for _, pair := range [][2]Config{{l.Config, c.saved}, {c.from, inEffect}} {
		p, err := patchBetween(pair[0], pair[1])
		if err != nil {
			return err
		}
		if c.overlay, err = layersWithout(c.overlay, p); err != nil {
			return err
		}
	}
	return nil
}

func (l *Locked) thinkRuntime(c *change, ch Change, until time.Time) error {
	if ch.For < 0 {
		return fmt.Errorf("%w: %v is over already", ErrConfig, ch.For)
	}
	if c.status == Stopped {
		return &StateError{Op: "an unsaved change", Status: c.status, Need: []Status{Running, Paused, Suspended}}
	}
	wanted, err := edited(c.from, ch.Edit)
	if err != nil {
		return err
	}
	if err := passing(c.from, wanted); err != nil {
		return err
	}
	// Said again, it counts from now on.
	layers := l.State.Overlay
	if again, err := edited(l.Config, ch.Edit); err == nil {
		p, err := patchBetween(l.Config, again)
		if err != nil {
			return err
		}
		if layers, err = layersWithout(layers, p); err != nil {
			return err
		}
	}
	c.overlay, err = layersWith(l.Config, layers, wanted, until)
	return err
}

func edited(c Config, edit func(*Config) error) (Config, error) {
	c, err := cloned(c)
	if err == nil {
		err = edit(&c)
	}
	return c, err
}

// cloned shares nothing with c.
func cloned(c Config) (out Config, err error) {
	b, err := configSchema.Encode(&c)
	if err == nil {
		err = configSchema.Decode(b, &out)
	}
	return out, err
}

// unchangeable refuses what no edit may touch.
func unchangeable(was, is Config) error {
	for field, same := range map[string]bool{
		"name": was.Name == is.Name, "uid": was.UID == is.UID, "ctid": was.CTID == is.CTID,
		"created": was.Created.Equal(is.Created), "template": was.Template == is.Template, "init": was.Init == is.Init,
	} {
		if !same {
			return fmt.Errorf("%w: %s never changes", ErrConfig, field)
		}
	}
	return nil
}

// passing refuses to change for a while what is kept in files.
func passing(was, wanted Config) error {
	p, err := patchBetween(was, wanted)
	if err != nil {
		return err
	}
	limits, _ := p["limits"].(map[string]any)
	network, _ := p["network"].(map[string]any)
	var fixed []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		if !slices.Contains([]string{"limits", "network", "hostname"}, k) {
			fixed = append(fixed, k)
		}
	}
	for _, k := range []string{"diskBytes", "diskWarnPercent"} {
		if _, there := limits[k]; there {
			fixed = append(fixed, "limits."+k)
		}
	}
	for _, k := range []string{"dns", "search"} {
		if _, there := network[k]; there {
			fixed = append(fixed, "network."+k)
		}
	}
	if len(fixed) > 0 {
		return fmt.Errorf("%w: %s can only be changed for good, not for a while", ErrConfig, strings.Join(fixed, ", "))
	}
	return nil
}

// waiting are the changed fields that a running init can't be given any more.
func waiting(was, is Config) (fields []string) {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"command", slices.Equal(was.Command, is.Command)},
		{"env", slices.Equal(was.Env, is.Env)},
		{"workdir", was.Workdir == is.Workdir},
		{"userns", was.UserNS == is.UserNS},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// fits refuses what the container's status leaves no way to do.
func (c change) fits() error {
	if c.status != Suspended {
		return nil
	}
	p, err := patchBetween(c.from, c.to)
	if err != nil {
		return err
	}
	network, _ := p["network"].(map[string]any)
	for what, touched := range map[string]bool{
		"a change of the host name": p["hostname"] != nil, "a change of userns": p["userns"] != nil,
		"a change of DNS": network["dns"] != nil || network["search"] != nil,
	} {
		if touched { // its processes have these, and its files open
			return &StateError{Op: what, Status: Suspended, Need: []Status{Stopped, Running, Paused}}
		}
	}
	return nil
}

// carryOut does a change, or nothing.
func (l *Locked) carryOut(ctx context.Context, c change) error {
	if digestOf(l.Config) == digestOf(c.saved) && reflect.DeepEqual(c.overlay, l.State.Overlay) {
		return nil
	}
	start := time.Now()
	if err := errors.Join(l.checkImage(c), l.checkDisk(ctx, c)); err != nil {
		return err
	}
	if err := l.promise(ctx, c); err != nil {
		return err
	}
	l.m.trace("set.intent", start)
	start = time.Now()
	if err := l.probe(ctx, c); err != nil {
		return errors.Join(err, l.finish())
	}
	l.m.trace("set.probe", start)
	var undos undo.Stack
	err := l.apply(ctx, c, &undos)
	if err == nil {
		start = time.Now()
		if err = l.commit(c); err == nil {
			l.m.trace("set.commit", start)
			l.announce(context.WithoutCancel(ctx), c)
			return nil
		}
	}
	if uerr := undos.Unwind(ctx); uerr != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", ErrUndo, uerr))
	}
	if errors.Is(err, ErrUndo) { // the intent stays, for repair to settle
		return err
	}
	return errors.Join(err, l.finish())
}

// commit writes the new configuration, which from then on decides what the kernel
// is to hold, and forgets the intent. An error is ErrUndo if the files may have it
// all the same.
func (l *Locked) commit(c change) error {
	was, overlay := l.Config, l.State.Overlay
	if digestOf(was) != digestOf(c.saved) {
		l.Config = c.saved
		if err := l.SaveConfig(); err != nil {
			// The file may have the new one all the same.
			return errors.Join(err, l.putConfigBack(was))
		}
	}
	in := l.State.Intent
	l.State.Overlay, l.State.Intent = c.overlay, nil
	if err := l.SaveState(); err != nil {
		l.State.Overlay, l.State.Intent = overlay, in
		return errors.Join(err, l.putConfigBack(was))
	}
	return nil
}

// putConfigBack writes the configuration that was before.
func (l *Locked) putConfigBack(was Config) error {
	l.Config = was
	if err := l.SaveConfig(); err != nil {
		return fmt.Errorf("%w: %w", ErrUndo, err)
	}
	return nil
}

// digestOf tells whether a configuration on disk is the one that was meant.
func digestOf(c Config) string {
	b, err := configSchema.Encode(&c)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
