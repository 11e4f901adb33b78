package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inittabBoot tells when an init that reads inittab(5) has booted, from outside and
// without running anything inside: it has no command of its table running that it
// waits for, and has slept between two looks. In between two such commands it does
// not sleep. Before the first it has not yet waited for any.
type inittabBoot struct {
	commands []string // the programs that init waits for while it boots
	read     bool
	last     initTurn
	quiet    bool
	running  []string // what it waited for at the last look
}

// initTurn changes whenever init was running.
type initTurn struct {
	pid      int
	switches string // voluntary context switches
}

// openrcPrograms are what openrc-init(8), which has no table, waits for.
var openrcPrograms = []string{"/sbin/openrc", "/usr/sbin/openrc"}

// complete says whether the boot of the init with that pid is complete.
func (b *inittabBoot) complete(pid int) bool {
	if !b.read || b.last.pid != pid {
		table, err := readInside(pid, "etc/inittab")
		if err != nil { // busybox has a built-in one
			table = "::sysinit:/etc/init.d/rcS\n"
		}
		b.commands, b.read, b.quiet = append(bootCommands(table), openrcPrograms...), true, false
	}
	now := initTurn{pid: pid, switches: procStatus(pid, "voluntary_ctxt_switches")}
	b.running = b.waitedFor(pid)
	slept := strings.HasPrefix(procStatus(pid, "State"), "S") && hasReaped(pid) && len(b.running) == 0
	done := slept && b.quiet && now == b.last
	b.last, b.quiet = now, slept
	return done
}

// bootCommands reads the programs that init waits for when it boots: lines
// ID:RUNLEVELS:ACTION:COMMAND.
func bootCommands(table string) []string {
	var all []string
	for line := range strings.Lines(table) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 4)
		if len(f) != 4 || strings.HasPrefix(f[0], "#") || !slices.Contains([]string{"sysinit", "bootwait", "wait"}, f[2]) {
			continue
		}
		words := strings.Fields(strings.TrimLeft(f[3], "+-@"))
		if len(words) > 1 && words[0] == "exec" {
			words = words[1:]
		}
		if len(words) > 0 && !slices.Contains(all, words[0]) {
			all = append(all, words[0])
		}
	}
	return all
}

// waitedFor lists the children of init that are commands of its table.
func (b *inittabBoot) waitedFor(pid int) []string {
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var found []string
	for child := range strings.FieldsSeq(string(list)) {
		line, err := os.ReadFile("/proc/" + child + "/cmdline")
		if err != nil {
			continue // it has just ended
		}
		// A script is the argument of its interpreter, and may be one of a shell's -c.
		words := strings.Fields(strings.ReplaceAll(string(line), "\x00", " "))
		if slices.ContainsFunc(words, func(w string) bool { return slices.Contains(b.commands, w) }) {
			found = append(found, strings.Join(words, " "))
		}
	}
	return found
}

// hasReaped says whether a process has waited for a child: what its children have
// used counts only then (cminflt in proc(5)).
func hasReaped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const cminflt = 11 - 3 // the fields are numbered from 1, and the state is the third
	if len(fields) <= cminflt {
		return false
	}
	n, err := strconv.ParseUint(fields[cminflt], 10, 64)
	return err == nil && n > 0
}

// maxInside bounds a file that is read out of a container's root.
const maxInside = 1 << 20

// readInside reads a file as a process of the container would see it.
func readInside(pid int, name string) (string, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, path.Clean(name), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "", errors.Join(fmt.Errorf("%s is not a regular file", name), err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxInside))
	return string(b), err
}
