package vmrig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// accelEnv names the accelerator, kvm or tcg, instead of finding it out.
const accelEnv = "CTCTL_VM_ACCEL"

// probeTimeout is ample for a kernel that KVM runs: it is at its end within two
// seconds.
const probeTimeout = 20 * time.Second

// accelerator is how QEMU runs a machine's code.
type accelerator struct {
	name string
	args []string
}

var (
	kvm = accelerator{"kvm", []string{"-accel", "kvm", "-cpu", "host"}}
	// One thread for all of a machine's processors. With one each (QEMU 7.2),
	// cmpxchg16b left nonsense in the flags, and the kernel stumbled over its own
	// instructions when another processor patched them. Without la57, because a
	// fifth level of page tables only costs time.
	tcg = accelerator{"tcg", []string{"-accel", "tcg,thread=single,tb-size=512", "-cpu", "max,la57=off,cx16=off"}}
)

// accelerate says which accelerator runs the kernel of an image here. /dev/kvm is
// no proof: nested virtualization may refuse this kernel or interpret each of its
// instructions. So the kernel is booted without a root, at which it panics and
// QEMU ends. The answer is remembered in dir until the next boot of this machine.
func accelerate(ctx context.Context, kernel, dir string) (accelerator, error) {
	switch name := os.Getenv(accelEnv); name {
	case "kvm":
		return kvm, nil
	case "tcg":
		return tcg, nil
	case "":
	default:
		return tcg, fmt.Errorf("%s=%s: it is kvm or tcg", accelEnv, name)
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return tcg, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return tcg, err
	}
	note := filepath.Join(dir, "vm-accel")
	for _, a := range []accelerator{kvm, tcg} {
		if known, err := os.ReadFile(note); err == nil && string(known) == a.name+" "+string(boot) {
			return a, nil
		}
	}
	found := tcg
	if bootsWith(ctx, kvm, kernel) {
		found = kvm
	}
	return found, os.WriteFile(note, []byte(found.name+" "+string(boot)), 0o600)
}

func bootsWith(ctx context.Context, a accelerator, kernel string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	args := append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256",
		"-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-serial", "stdio",
	}, a.args...)
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	return err == nil && ctx.Err() == nil && strings.Contains(string(out), "Kernel panic")
}

// disk makes an image of a file system that holds what is in a directory.
func disk(ctx context.Context, out, dir, size string) error {
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, err := tool(ctx, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-E", "root_owner=0:0,nodiscard", "-d", dir, out, size)
	return err
}

// tool runs a program of this machine and returns its output.
func tool(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
