package container

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
)

// The container's lock comes before the host's: what settles a container may need
// the host's, and would wait for ever for a rename that holds it.
func TestARenameWaitsForTheContainerWithoutTheHost(t *testing.T) {
	m, _ := placed(t, valid())
	held, err := m.Lock(t.Context(), "web1", "another operation")
	if err != nil {
		t.Fatal(err)
	}
	host, err := statefile.TryLock(filepath.Join(m.StateRoot, "host.lock"), "another operation")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = m.Rename(ctx, "web1", "mail")
	var busy *statefile.BusyError
	if !errors.As(err, &busy) || ctx.Err() != nil {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(held.Unlock(), host.Unlock()); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename(t.Context(), "web1", "mail"); err != nil {
		t.Error(err)
	}
}
