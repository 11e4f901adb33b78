package vmrig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// imageTimeout is for making an image, with a mirror far away.
const imageTimeout = 40 * time.Minute

// The Debian releases that there are images of.
const (
	Bookworm = "bookworm"
	Trixie   = "trixie"
)

// Image provides the image of a Debian release in the cache and returns its
// directory. A fresh one has nothing on it that ctctl needs; the others what
// scripts/setup.sh installs.
func Image(ctx context.Context, suite string, fresh bool) (string, error) {
	root, err := SourceRoot(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	args := []string{suite}
	if fresh {
		args = []string{"--fresh", suite}
	}
	cmd := outside(ctx, filepath.Join(root, "scripts", "vm-image.sh"), args...)
	cmd.Env = append(os.Environ(), cacheEnv+"="+CacheDir())
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		said := log.String()
		return "", fmt.Errorf("image of %s: %w\n%s", suite, err, said[max(0, len(said)-4000):])
	}
	return strings.TrimSpace(string(out)), nil
}

// outsideEnv names the network namespace that reaches the outside, when the
// machines' is another one.
const outsideEnv = "CTCTL_VM_OUTSIDE"

// outside is a command that may need the outside: package mirrors, Go modules.
func outside(ctx context.Context, name string, args ...string) *exec.Cmd {
	if ns := os.Getenv(outsideEnv); ns != "" {
		name, args = "nsenter", append([]string{"--net=" + ns, name}, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	return cmd
}

// SourceRoot is the directory of the sources that the current directory is in.
func SourceRoot(ctx context.Context) (string, error) {
	out, err := tool(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	return strings.TrimSpace(out), err
}
