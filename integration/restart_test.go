package integration_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A restart that is interrupted when it has stopped the container starts it all the same.
func TestAnInterruptedRestartLeavesNothingStopped(t *testing.T) {
	r := open(t)
	b := r.create(t, "sleep", "1000")
	r.ctctl(t, "start", b.name)
	state := filepath.Join(r.state, "containers", b.name, "state.json")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.binary, "restart", "--timeout", "0", b.name)
	cmd.Env, cmd.WaitDelay = r.environ(), time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	starting := func() bool {
		b, err := os.ReadFile(state)
		return err == nil && bytes.Contains(b, []byte(`"op": "start"`))
	}
	for ctx.Err() == nil && !starting() {
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	b.wantStatus(t, "running")
}
