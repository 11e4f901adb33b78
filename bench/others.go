package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// runtimeUse is another runtime: use gives the command lines that run a container
// called id in the background and that remove it.
type runtimeUse struct {
	name string
	use  func(id string) (run, remove []string)
}

// useRuntime measures another runtime; removing is not measured. The error says,
// in a line, why it does not work here.
func (r *rig) useRuntime(ctx context.Context, use func(string) (run, remove []string)) (sample, error) {
	var s sample
	for i := range r.runs {
		run, remove := use(fmt.Sprintf("ctctl-bench-%d-%d", os.Getpid(), i))
		if _, err := exec.LookPath(run[0]); err != nil {
			return nil, notInstalled(run[0])
		}
		took, text, err := r.timed(ctx, run[0], run[1:]...)
		_, _, derr := r.timed(context.WithoutCancel(ctx), remove[0], remove[1:]...)
		if err != nil { // what did not come to be can't always be removed
			lines := strings.Split(text, "\n")
			return nil, errors.New(strings.TrimSpace(lines[len(lines)-1]))
		}
		if derr != nil {
			return nil, derr
		}
		s = append(s, took)
	}
	return s, nil
}

func notInstalled(tool string) error {
	if has, err := mayRaiseLimits(); tool == "podman" && err == nil && !has {
		return errors.New("not installed, and it would not start: it raises resource limits, and CAP_SYS_RESOURCE is not in this machine's bounding set")
	}
	return errors.New("not installed")
}

func (r *rig) oci(bundle, tool string, global ...string) func(string) (run, remove []string) {
	base := append([]string{tool, "--root", filepath.Join(bundle, "state-"+tool)}, global...)
	return func(id string) (run, remove []string) {
		return words(base, "run", "--detach", "--bundle", bundle, id), words(base, "delete", "--force", id)
	}
}

func (r *rig) podman(root string) func(string) (run, remove []string) {
	base := []string{"podman", "--root", filepath.Join(r.scratch(), "podman"), "--runroot", filepath.Join(r.scratch(), "podman-run")}
	return func(id string) (run, remove []string) {
		run = words(base, "run", "--detach", "--network=none", "--name", id, "--rootfs", root)
		return words(run, payload(0)...), words(base, "rm", "--force", id)
	}
}

func words(base []string, more ...string) []string {
	return append(append([]string{}, base...), more...)
}

// bundle makes a bundle (OCI runtime specification) of runc's default
// configuration, or crun's where there is no runc, with our command and root.
func (r *rig) bundle(ctx context.Context, root string) (string, error) {
	tool := "runc"
	if _, err := exec.LookPath(tool); err != nil {
		tool = "crun"
	}
	dir, err := os.MkdirTemp(r.scratch(), "bundle-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, tool, "spec")
	cmd.WaitDelay = time.Second
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s spec: %w: %s", tool, err, out)
	}
	path := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return "", fmt.Errorf("%s: no process", path)
	}
	process["args"], process["terminal"] = payload(0), false
	spec["root"] = map[string]any{"path": root}
	if text, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(path, text, 0o600)
}

// mayRaiseLimits: CAP_SYS_RESOURCE is bit 24 of the bounding set (capabilities(7)).
func mayRaiseLimits() (bool, error) {
	const capSysResource = 24
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return mask&(1<<capSysResource) != 0, err
		}
	}
	return false, errors.New("no CapBnd in /proc/self/status")
}
