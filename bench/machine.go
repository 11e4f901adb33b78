package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine prints what the figures are of.
func (r *rig) machine(ctx context.Context) error {
	var u unix.Utsname
	var info unix.Sysinfo_t
	var st unix.Statfs_t
	if err := errors.Join(unix.Uname(&u), unix.Sysinfo(&info), unix.Statfs(r.dir, &st)); err != nil {
		return err
	}
	v, err := r.host.CRIU.Version(ctx)
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("ctctl bench, %s, medians of %d runs\n\n", time.Now().UTC().Format(time.DateTime), r.runs)
	for _, line := range [][2]string{
		{"kernel", unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])},
		{"processor", fmt.Sprintf("%d × %s", runtime.NumCPU(), processor())},
		{"memory", fmt.Sprintf("%d MiB", uint64(info.Totalram)*uint64(info.Unit)>>20)},
		{"load", strings.TrimSpace(string(load)) + " (other programs disturb the figures)"},
		{"images", fmt.Sprintf("%s, a file system of type %#x", r.dir, st.Type)},
		{"pool", fmt.Sprintf("%s in %s", r.host.Settings.Storage, r.state())},
		{"ctctl", lastLine(ctx, r.ctctl, "version")},
		{"criu", v.String() + " " + r.host.CRIU.Binary},
		{"runc", firstLine(ctx, "runc", "--version")},
		{"crun", firstLine(ctx, "crun", "--version")},
	} {
		fmt.Printf("  %-10s %s\n", line[0], line[1])
	}
	return nil
}

func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// firstLine is what a program says of itself, or why it says nothing.
func firstLine(ctx context.Context, name string, args ...string) string {
	line, _, _ := strings.Cut(says(ctx, name, args), "\n")
	return line
}

// lastLine is for programs that print a head line first.
func lastLine(ctx context.Context, name string, args ...string) string {
	text := says(ctx, name, args)
	return text[strings.LastIndex(text, "\n")+1:]
}

func says(ctx context.Context, name string, args []string) string {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "not here: " + err.Error()
	}
	return strings.TrimSpace(string(out))
}
