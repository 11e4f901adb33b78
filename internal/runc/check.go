package runc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// Check compares what binds the restored tasks with the container's configuration:
// an image is code, and must not bring more than the configuration gives. To be
// called when credentials and filters are in place and tasks do not run yet. Of
// pids, those in this process's own pid namespace (CRIU's) are passed over.
func (r *Restored) Check(pid int, pids []int) error {
	want, err := mask(r.bounding())
	if err != nil {
		return err
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	for _, p := range pids {
		other, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p))
		if errors.Is(err, fs.ErrNotExist) || other == own {
			continue
		}
		if err != nil {
			return err
		}
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p))
		if err != nil {
			return err
		}
		for _, t := range threads {
			if err := r.checkThread(p, t.Name(), want); err != nil {
				return fmt.Errorf("process %d, thread %s: %w", p, t.Name(), err)
			}
		}
	}
	return r.checkMaps(pid)
}

func (r *Restored) checkThread(pid int, tid string, want uint64) error {
	got, err := readStatus(fmt.Sprintf("/proc/%d/task/%s/status", pid, tid))
	if err != nil {
		return err
	}
	if strings.HasPrefix(got["State"], "Z") {
		return nil // it will never run
	}
	for _, set := range []string{"CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"} {
		bits, err := strconv.ParseUint(got[set], 16, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", set, err)
		}
		if bits&^want != 0 {
			return fmt.Errorf("%w: %s is %#x, allowed is %#x", ErrExcess, set, bits, want)
		}
	}
	switch {
	case got["Seccomp"] != "2":
		return fmt.Errorf("%w: no seccomp filter", ErrExcess)
	case !r.spec.System && got["NoNewPrivs"] != "1":
		return fmt.Errorf("%w: new privileges are not blocked", ErrExcess)
	}
	return nil
}

// bounding is the container's set; it is in the configuration or, as ours is, in
// the process.
func (r *Restored) bounding() []string { return r.spec.capabilities() }

func (r *Restored) checkMaps(pid int) error {
	for _, m := range []struct {
		file string
		want []configs.IDMap
	}{{"uid_map", r.cfg.UIDMappings}, {"gid_map", r.cfg.GIDMappings}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, m.file))
		if err != nil {
			return err
		}
		if len(m.want) == 0 {
			continue
		}
		f := strings.Fields(string(b))
		w := m.want[0]
		want := []string{strconv.FormatInt(w.ContainerID, 10), strconv.FormatInt(w.HostID, 10), strconv.FormatInt(w.Size, 10)}
		if strings.Join(f, " ") != strings.Join(want, " ") {
			return fmt.Errorf("%w: %s is %v, wanted %v", ErrExcess, m.file, f, want)
		}
	}
	return nil
}

func readStatus(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out, nil
}

func mask(names []string) (uint64, error) {
	known := map[string]capability.Cap{}
	for _, c := range capability.ListKnown() {
		known["CAP_"+strings.ToUpper(c.String())] = c
	}
	var m uint64
	for _, n := range names {
		c, ok := known[n]
		if !ok {
			return 0, fmt.Errorf("unknown capability %s", n)
		}
		m |= 1 << uint(c)
	}
	return m, nil
}

// CapabilityMask is the container's bounding set, bit n being capability n.
func CapabilityMask(system bool, ids *IDRange) (uint64, error) {
	return mask(Spec{System: system, IDs: ids}.capabilities())
}
