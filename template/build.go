package template

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
)

// BuildOptions say what to build. Only Suite is required.
type BuildOptions struct {
	// Suite is a name of a Debian release: bookworm, trixie, sid, stable, …
	Suite string
	// Packages are installed in addition, in apt's spelling: NAME[:ARCH]
	// optionally followed by =VERSION or /SUITE.
	Packages []string
	// Mirror is the URL of a Debian mirror. "" stands for what the host's own
	// apt sources say, updates and security included.
	Mirror string
	// Variant is one of mmdebstrap's; "" stands for minbase.
	Variant string
	// Init is what the system boots with: systemd, sysvinit, openrc, busybox, or
	// none for containers that run one command. "" stands for what Packages bring, and for
	// systemd when they bring no init.
	Init string
}

const (
	defaultVariant = "minbase"
	// buildBytes is what the smallest build needs at its largest, packages
	// and lists included.
	buildBytes = 512 << 20
)

// variants are those of mmdebstrap(1) that configure what they install.
var variants = []string{
	"essential", "apt", "required", "minbase", "buildd", "important", "debootstrap", "standard",
}

// basics are always installed: without them no program in the container can
// make a TLS connection to anybody.
var basics = []string{"ca-certificates"}

var (
	suiteForm   = regexp.MustCompile(`^[a-z]+$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*[a-z0-9+](:[a-z0-9-]+)?([=/][A-Za-z0-9.+:~-]+)?$`)
)

// complete fills in the defaults and checks the rest.
func (o BuildOptions) complete() (BuildOptions, error) {
	if o.Variant == "" {
		o.Variant = defaultVariant
	}
	if !suiteForm.MatchString(o.Suite) {
		return o, fmt.Errorf("%w: suite %.80q does not match [a-z]+", ErrOption, o.Suite)
	}
	if !slices.Contains(variants, o.Variant) {
		return o, fmt.Errorf("%w: variant %.80q is not one of %s", ErrOption, o.Variant, strings.Join(variants, ", "))
	}
	if o.Mirror != "" {
		if err := checkMirror(o.Mirror); err != nil {
			return o, err
		}
	}
	for _, p := range o.Packages {
		if !packageForm.MatchString(p) {
			return o, fmt.Errorf("%w: %.80q is not a package name", ErrOption, p)
		}
	}
	kind, err := o.initKind()
	if err != nil {
		return o, err
	}
	o.Init = kind
	o.Packages = slices.Concat(basics, initPackages[kind], o.Packages)
	slices.Sort(o.Packages)
	o.Packages = slices.Compact(o.Packages)
	return o, nil
}

// Build makes a template of a Debian release with mmdebstrap. It takes about a
// minute, more with many packages. Errors: ErrName, ErrExists, ErrOption,
// ErrToolMissing, a BuildError, storage.ErrNoSpace, statefile.ErrBusy.
func (m Manager) Build(ctx context.Context, name string, o BuildOptions) (t Template, err error) {
	defer wrapOp("build", name, &err)
	if err := CheckName(name); err != nil {
		return Template{}, err
	}
	if o, err = o.complete(); err != nil {
		return Template{}, err
	}
	tool, err := findMmdebstrap()
	if err != nil {
		return Template{}, err
	}
	sources, err := sourceLines(os.DirFS("/"), o.Suite, o.Mirror)
	if err != nil {
		return Template{}, err
	}
	d, err := m.begin(ctx, name, "build", buildBytes)
	if err != nil {
		return Template{}, err
	}
	published := false
	defer func() { err = errors.Join(err, d.end(ctx, published)) }()
	if err := d.bootstrap(ctx, tool, o, sources); err != nil {
		return Template{}, err
	}
	m.progress("preparing the boot")
	if err := outfit(d.path(), o.Init); err != nil {
		return Template{}, fmt.Errorf("prepare the boot: %w", err)
	}
	m.progress("removing what belongs to this host")
	if err := neutralise(ctx, d.path()); err != nil {
		return Template{}, fmt.Errorf("neutralise: %w", err)
	}
	t, err = d.publish(ctx, Template{
		Suite: o.Suite, Packages: o.Packages, Source: strings.Join(sources, "\n"),
	})
	published = err == nil
	return t, err
}

// bootstrap fills the working volume.
func (d *draft) bootstrap(ctx context.Context, tool string, o BuildOptions, sources []string) error {
	scratch := d.m.file(d.name, scratchSuffix) // removed by sweep
	if err := os.Mkdir(scratch, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	args := []string{
		"--mode=root", "--format=directory", "--variant=" + o.Variant,
		"--include=" + strings.Join(o.Packages, ","), o.Suite, d.path(),
	}
	run := mmdebstrap{tool: tool, args: append(args, sources...), suite: o.Suite, scratch: scratch, progress: d.m.progress}
	return run.run(ctx)
}
