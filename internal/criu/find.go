package criu

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// EnvBinary names the environment variable that holds the path of criu.
const EnvBinary = "CTCTL_CRIU"

// findTimeout is for a moment's work, which takes long while a container without
// limits uses up the machine: then every command is needed to end that.
const findTimeout = 2 * time.Minute

// privatePaths are where a CRIU that is not the distribution's is installed.
var privatePaths = []string{
	"/usr/local/lib/ctctl/criu/sbin/criu",
	"/usr/lib/ctctl/criu",
	"/usr/lib/ctctl/criu/sbin/criu",
}

// Find returns the CRIU to use: flag if given, else $CTCTL_CRIU if set, else
// the first of ctctl's own places and PATH that there is. It returns
// [ErrNotInstalled] with what was tried, or [ErrTooOld].
func Find(flag string) (Engine, error) {
	path, tried := locate(flag, os.Getenv(EnvBinary))
	if path == "" {
		return Engine{}, fmt.Errorf("%w: tried %s", ErrNotInstalled, strings.Join(tried, ", "))
	}
	e := Engine{Binary: path}
	ctx, cancel := context.WithTimeoutCause(context.Background(), findTimeout, fmt.Errorf("no answer within %v", findTimeout))
	defer cancel()
	v, err := e.Version(ctx)
	if err != nil {
		return Engine{}, err
	}
	if v.Less(MinVersion) {
		return Engine{}, fmt.Errorf("%w: %s is %s, needed is %s or later", ErrTooOld, path, v, MinVersion)
	}
	return e, nil
}

// locate returns the first executable, or what it tried. A wish that is not
// there does not fall back to another binary.
func locate(flag, env string) (path string, tried []string) {
	candidates := append(append([]string{}, privatePaths...), "criu")
	for _, wish := range []string{flag, env} {
		if wish != "" {
			candidates = []string{wish}
			break
		}
	}
	for _, c := range candidates {
		if p, err := exec.LookPath(c); err == nil {
			// It is run from another directory.
			if p, err = filepath.Abs(p); err == nil {
				return p, nil
			}
		}
		if c == "criu" {
			c = "criu in PATH"
		}
		tried = append(tried, c)
	}
	return "", tried
}
