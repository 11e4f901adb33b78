package integration_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
)

// cacheDir is kept between runs.
var cacheDir = cmp.Or(os.Getenv("CTCTL_TEST_CACHE"), "/var/tmp/ctctl-cache")

const (
	suite = "bookworm"
	// buildTimeout bounds the making of the root: a minute with a mirror nearby.
	buildTimeout = 15 * time.Minute
)

// packages are what the tests run inside.
var packages = []string{"redis-server", "postgresql", "nginx", "python3", "procps", "iproute2", "sysvinit-core"}

// rootCache is the archive of the root with these packages.
func rootCache() string {
	sum := sha256.Sum256([]byte(suite + " " + strings.Join(packages, " ")))
	return filepath.Join(cacheDir, fmt.Sprintf("rootfs-%x.tar", sum[:6]))
}

// haveRoot is a testutil.Need: an archive, or what makes one.
func haveRoot() error {
	if _, err := os.Stat(rootCache()); err == nil {
		return nil
	}
	return testutil.Tool("mmdebstrap")()
}

// provideTemplate makes the template "full": imported from the cache, or built
// and saved there.
func (r *rig) provideTemplate() error {
	return r.template("full", rootCache(), suite, packages)
}

// template makes a template: imported from the cache, or built, with more flags, and
// saved there.
func (r *rig) template(name, cache, suite string, packages []string, flags ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	if _, err := os.Stat(cache); err == nil {
		if res := r.command(ctx, "", "template", "import", name, cache); res.err != nil {
			return res
		}
		return nil
	}
	args := append([]string{"template", "build", "--suite", suite}, flags...)
	for _, p := range packages {
		args = append(args, "--package", p)
	}
	// The package mirror is outside of the network that the tests have.
	machine, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		return err
	}
	defer machine.Close()
	var res result
	if err := insideNetNS(machine, func() { res = r.command(ctx, "", append(args, name)...) }); err != nil {
		return err
	}
	if res.err != nil {
		return res
	}
	return r.saveTemplate(ctx, name, cache)
}

// saveTemplate writes a template's files to the cache, whole or not at all.
func (r *rig) saveTemplate(ctx context.Context, name, cache string) error {
	raw, err := os.ReadFile(filepath.Join(r.state, "templates", name+".json"))
	if err != nil {
		return err
	}
	var meta struct {
		Data struct {
			Volume string `json:"volume"`
		} `json:"data"`
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return err
	}
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return err
	}
	part, err := os.CreateTemp(cacheDir, "rootfs-*.part")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	cmd := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--xattrs", "--sparse", "--directory", filepath.Join(r.state, "pool", "volumes", meta.Data.Volume), ".")
	cmd.WaitDelay = time.Second
	cmd.Stdout, cmd.Stderr = part, os.Stderr
	if err := cmd.Run(); err != nil {
		part.Close()
		return fmt.Errorf("tar: %w", err)
	}
	if err := part.Close(); err != nil {
		return err
	}
	return os.Rename(part.Name(), cache)
}
