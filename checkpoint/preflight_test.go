package checkpoint

import (
	"errors"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/preflight"
	"github.com/google/go-cmp/cmp"
)

func TestWhatBlocksACheckpointIsNamed(t *testing.T) {
	vsock := preflight.Finding{Level: preflight.Fail, PID: 7, HostPID: 70, Command: "agent", FD: 4, What: "VSOCK socket", Cure: "kill 7"}
	warning := preflight.Finding{Level: preflight.Warn, FD: -1, What: "a warning"}
	err := error(&BlockedError{Report: preflight.Report{Findings: []preflight.Finding{vsock, vsock, warning}, Omitted: 3}})
	if !errors.Is(err, ErrUndumpable) || errors.Is(err, ErrDamaged) {
		t.Errorf("%v is not what it should be", err)
	}
	want := "cannot be checkpointed: process 7 (agent) descriptor 4: VSOCK socket: kill 7; and 4 more"
	if !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %q, want …%q", err, want)
	}
}

func TestMountPointsComeFromWhatCRIUIsTold(t *testing.T) {
	got := mountPoints([]string{"mnt[/dev/null]:/dev/null", "mnt[/a]:b]:/x", "net[1]:x", "mnt[", "mnt[/proc/keys]:/dev/null"})
	if diff := cmp.Diff([]string{"/dev/null", "/a]:b", "/proc/keys"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
