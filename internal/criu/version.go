package criu

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// Version is CRIU's version number.
type Version struct {
	Major, Minor, Sublevel int
}

// MinVersion is the oldest usable CRIU: older ones cannot dump any inet
// socket on Linux 6.16 and later, where SO_PASSCRED is refused for them.
var MinVersion = Version{Major: 4, Minor: 2}

// String is the usual notation: "4.2", "4.2.1".
func (v Version) String() string {
	s := fmt.Sprintf("%d.%d", v.Major, v.Minor)
	if v.Sublevel > 0 {
		s += fmt.Sprintf(".%d", v.Sublevel)
	}
	return s
}

// Less tells whether v is older than w.
func (v Version) Less(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Sublevel < w.Sublevel
}

// Version runs `criu --version`. Every dump and restore asks for it beforehand, so
// an engine without a binary says there why it has none.
func (e Engine) Version(ctx context.Context) (Version, error) {
	if e.Binary == "" {
		return Version{}, cmp.Or(e.Unusable, ErrNotInstalled)
	}
	cmd := exec.CommandContext(ctx, e.Binary, "--no-default-config", "--version")
	cmd.WaitDelay = time.Second
	cmd.Env = workerEnviron
	cmd.Dir = "/"
	out, err := cmd.Output()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // rather than how it was ended
	}
	if err != nil {
		return Version{}, fmt.Errorf("ask %s for its version: %w", e.Binary, err)
	}
	v, err := parseVersion(string(out))
	if err != nil {
		return Version{}, fmt.Errorf("ask %s for its version: %w", e.Binary, err)
	}
	return v, nil
}

// parseVersion reads "Version: 4.2.1\n" and a "GitID:" line that may follow.
func parseVersion(out string) (Version, error) {
	for line := range strings.Lines(out) {
		number, ok := strings.CutPrefix(strings.TrimSpace(line), "Version: ")
		if !ok {
			continue
		}
		var v Version
		parts := strings.SplitN(number, ".", 3)
		if len(parts) < 2 {
			return Version{}, fmt.Errorf("%q is no version", escape(number))
		}
		for i, field := range []*int{&v.Major, &v.Minor, &v.Sublevel} {
			if i >= len(parts) {
				break
			}
			n, err := strconv.Atoi(leadingDigits(parts[i]))
			if err != nil {
				return Version{}, fmt.Errorf("%q is no version", escape(number))
			}
			*field = n
		}
		return v, nil
	}
	return Version{}, fmt.Errorf("no version in %q", escape(out))
}

// leadingDigits drops a suffix such as "-rc1".
func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
