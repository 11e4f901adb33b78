package checkpoint

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ctctl/ctctl/internal/criu"
)

func TestOnlyWhatCRIUStumbledOverIsWorthAnotherTry(t *testing.T) {
	for name, err := range map[string]error{
		"not CRIU's":       errors.New("no space left"),
		"not a passing":    &criu.Error{Op: "dump", Object: "MPTCP socket", FD: -1},
		"after a deadline": fmt.Errorf("%w: %w", criu.ErrDeadline, &criu.Error{Op: "dump", FD: -1}),
	} {
		if reason, passes := transient(err); passes {
			t.Errorf("%s: again because of %q", name, reason)
		}
	}
	reason, _ := transient(&criu.Error{Op: "dump", PID: 9, InnerPID: 3, Command: "a", FD: 4, Object: "epoll"})
	if want := "process 3 (a) descriptor 4: epoll"; reason != want {
		t.Errorf("reason %q, want %q", reason, want)
	}
}
