package quota

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Apply puts the limits in force: all of them or, on an error, none. Zero
// takes a limit away. The controllers are enabled in cgroup2 where needed. The
// same Limits mean the same with cgroup v1 and v2; what a version cannot do is
// refused, and what it can do only in part is what Notes says. DiskBytes and
// DiskWarnPercent are not looked at.
//
// Errors: ErrBadLimit, also for a CPU that the host does not have; ErrNotFound if
// the group does not exist; *UnsupportedError if a limit is wanted and the host
// lacks the controller or its version has no such limit; ErrNoDevice;
// ErrBelowUsage, with the figures, if more memory or swap is in use than the
// kernel can reclaim or more tasks exist. The kernel would take such a memory
// limit on cgroup2 and kill processes, and such a pids limit everywhere and let
// every fork fail.
func (g Group) Apply(l Limits) error {
	if err := g.apply(l); err != nil {
		return fmt.Errorf("limit %s: %w", g.name, err)
	}
	return nil
}

func (g Group) apply(l Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	if err := g.check(); err != nil {
		return err
	}
	if !g.Exists() {
		return ErrNotFound
	}
	if err := g.enableTop(l.controllers()); err != nil {
		return err
	}
	var steps []step
	// Memory comes last: what it makes the kernel reclaim does not come back.
	for _, plan := range [...]func(Limits) ([]step, error){
		g.planPIDs, g.planCPU, g.planCPUWeight, g.planCPUSet, g.planIO, g.planIOWeight, g.planMemory,
	} {
		s, err := plan(l)
		if err != nil {
			return err
		}
		steps = append(steps, s...)
	}
	return g.mounts.runSteps(steps)
}

// step is one write.
type step struct {
	limit       string // as the flag is called
	file, value string
	// key is set for a file of several lines: the step is about the line that
	// begins with it, which is "none" when it is not there.
	key, none string
	// instead means the same as nothing, for a file that the kernel does not let
	// become empty (ENOSPC).
	instead string
	// always is for a write that does something even when the value stays. Others
	// are left out then: what is in force already is not refused.
	always  bool
	check   func() error      // asked after the write
	explain func(error) error // makes the kernel's refusal readable
}

// now reads what the step is about to change, as it can be written back.
func (s step) now() (string, error) {
	text, err := readText(s.file)
	if err != nil || s.key == "" {
		return text, err
	}
	for line := range strings.Lines(text) {
		if first, _, _ := strings.Cut(line, " "); first == s.key {
			return strings.TrimSpace(line), nil
		}
	}
	return s.key + " " + s.none, nil
}

func (m mounts) put(path, value string) error {
	if m.write != nil {
		return m.write(path, value)
	}
	return writeText(path, value)
}

func (m mounts) set(s step, value string) error {
	err := m.put(s.file, cmp.Or(value, "\n"))
	if errors.Is(err, unix.ENOSPC) && value == "" && s.instead != "" {
		err = m.put(s.file, s.instead)
	}
	return err
}

func (m mounts) run(s step) error {
	now, err := s.now()
	if err == nil {
		if now == s.value && !s.always {
			return nil
		}
		err = m.set(s, s.value)
	}
	switch {
	case err == nil && s.check != nil:
		return s.check()
	case err != nil && s.explain != nil:
		err = s.explain(err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.limit, err)
	}
	return nil
}

// runSteps writes in order and on an error writes back what was there, in
// reverse. The old values are read first, so that an unreadable file is found
// before anything has changed.
func (m mounts) runSteps(steps []step) error {
	old := make([]string, len(steps))
	for i, s := range steps {
		var err error
		if old[i], err = s.now(); err != nil {
			return fmt.Errorf("%s: %w", s.limit, err)
		}
	}
	for i, s := range steps {
		if err := m.run(s); err != nil {
			return errors.Join(err, m.undoSteps(steps[:i+1], old))
		}
	}
	return nil
}

func (m mounts) undoSteps(steps []step, old []string) error {
	var errs []error
	for i, s := range slices.Backward(steps) {
		now, err := s.now()
		if err == nil && now != old[i] {
			err = m.set(s, old[i])
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("put back %q in %s: %w", old[i], s.file, err))
		}
	}
	return errors.Join(errs...)
}

// knob is one limit in the kernel.
type knob struct {
	limit      string // as the flag is called
	controller string // as cgroup2 calls it
	v1, v2     string // files; "" if the version has no such limit
	why        string // why not, a phrase
	cure       string
}

// find returns the knob's file. ok is false if it is not there and need not be.
func (g Group) find(k knob, wanted bool) (file string, v1, ok bool, err error) {
	dir, v1 := g.dirOf(k.controller)
	name, version, other := k.v2, "v2", "v1"
	if v1 {
		name, version, other = k.v1, "v1", "v2"
	}
	if dir != "" && name != "" && exists(dir+"/"+name) {
		return dir + "/" + name, v1, true, nil
	}
	if !wanted {
		return "", v1, false, nil
	}
	if v1 && !exists(dir) {
		return "", v1, false, fmt.Errorf("%s: %w in the hierarchy of the %s controller", k.limit, ErrNotFound, k.controller)
	}
	e := &UnsupportedError{Limit: k.limit, Controller: k.controller, Version: version, Cure: k.cure}
	switch {
	case name == "":
		e.Why = cmp.Or(k.why, "it has no such limit")
		e.Cure = cmp.Or(k.cure, "boot the host with cgroup "+other+" only, or leave it out")
	case dir != "" && g.hasController(dir, v1, k.controller):
		e.Why = "this kernel has no " + name
		e.Cure = cmp.Or(k.cure, "use a kernel that has it, or leave it out")
	default:
		e.Why = "the controller is missing"
		e.Cure = "enable it in the kernel's configuration or command line"
	}
	return "", v1, false, e
}

// hasController tells for the group's directory.
func (g Group) hasController(dir string, v1 bool, controller string) bool {
	if v1 {
		return true
	}
	have, err := readWords(dir + "/cgroup.controllers")
	return err == nil && slices.Contains(have, controller)
}
