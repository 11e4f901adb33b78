package integration_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
	"github.com/google/nftables"
)

// wantClean fails unless the host has what its containers need, and nothing else.
func (s *site) wantClean(t testing.TB) {
	t.Helper()
	var wrong []string
	// The kernel removes some things a moment after their last user.
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		wrong = s.audit(t)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("too much or too little:\n%s", strings.Join(wrong, "\n"))
			return
		}
	}
}

// audit compares what is there with what the containers' states call for.
func (s *site) audit(t testing.TB) (wrong []string) {
	t.Helper()
	infos, err := s.h.Containers.List(context.WithoutCancel(t.Context()))
	if err != nil {
		return []string{err.Error()}
	}
	links, volumes, runs := map[string]bool{}, map[string]bool{}, map[string]bool{}
	waiting := map[string]bool{} // shapers that may be there: they wait for a resume
	for _, i := range infos {
		up := i.Status == container.Running
		if up {
			runs[i.Config.UID] = true
			for _, nic := range i.Config.Network.Interfaces {
				link := hostLink(i.Config, nic.Index)
				links[link] = true
				if nic.Rate.EgressBits > 0 { // what shapes it
					links["cr"+strings.TrimPrefix(link, "ct")] = true
				}
			}
			wrong = append(wrong, s.auditTables(i.Run.PID)...)
		}
		if i.Status == container.Suspended {
			for _, nic := range i.Config.Network.Interfaces {
				waiting["cr"+strings.TrimPrefix(hostLink(i.Config, nic.Index), "ct")] = true
			}
		}
		if i.State.Intent != nil {
			wrong = append(wrong, i.Config.Name+" has an intent: "+i.State.Intent.Op)
		}
		volumes[i.State.Volume] = true
		wrong = append(wrong, s.auditImages(t, i, volumes)...)
		wrong = append(wrong, s.auditProcesses(t, i, up)...)
		wrong = append(wrong, auditCgroup(i, up)...)
	}
	wrong = append(wrong, s.auditVolumes(t, volumes)...)
	wrong = append(wrong, s.auditLinks(t, links, waiting)...)
	wrong = append(wrong, s.auditFiles(t, runs)...)
	return append(wrong, s.auditStrangers(t, infos)...)
}

// hostLink is the name of the host's end of an interface, as documented.
func hostLink(c container.Config, index int) string {
	if index == 0 {
		return c.LinkName()
	}
	return c.LinkName() + strconv.FormatInt(int64(index), 36)
}

func (s *site) auditImages(t testing.TB, i container.Info, volumes map[string]bool) (wrong []string) {
	t.Helper()
	list, _, err := s.h.Checkpoints.List(context.WithoutCancel(t.Context()), i.Config.Name)
	if err != nil {
		return []string{err.Error()}
	}
	want := map[string]bool{}
	if i.State.Suspended != "" {
		want[i.State.Suspended] = true
		volumes[s.volumeOfImage(t, i)] = true
	}
	for _, m := range list {
		want[m.Name], volumes[m.Volume] = true, true
	}
	entries, err := os.ReadDir(filepath.Join(s.state, "snapshots", i.Config.UID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !want[e.Name()] {
			wrong = append(wrong, "image "+e.Name())
		}
	}
	return wrong
}

// volumeOfImage is the storage snapshot that a suspended container's image may have.
func (s *site) volumeOfImage(t testing.TB, i container.Info) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.state, "snapshots", i.Config.UID, i.State.Suspended, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Data struct{ Volume string }
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	return manifest.Data.Volume
}

// auditProcesses wants one init, one supervisor, one holder and no tracer, or
// none of them.
func (s *site) auditProcesses(t testing.TB, i container.Info, up bool) (wrong []string) {
	t.Helper()
	want := 0
	if up {
		want = 1
	}
	mark := " " + s.mark + "-" + i.Config.Name + " "
	inits, err := s.matching(func(p proc, _ map[int]proc) bool {
		return p.name == "ledger" && strings.Contains(p.args+" ", mark)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(inits) != want {
		wrong = append(wrong, fmt.Sprintf("%s is %s and has %d inits: %v", i.Config.Name, i.Status, len(inits), inits))
	}
	for _, kind := range []string{"supervise", "hold"} {
		found, err := s.helpers(kind, i.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != want {
			wrong = append(wrong, fmt.Sprintf("%s is %s and has %d of ctctl %s: %v", i.Config.Name, i.Status, len(found), kind, found))
		}
	}
	for _, p := range inits {
		if tracer := tracerOf(p.pid); tracer != "0" {
			wrong = append(wrong, fmt.Sprintf("%v is traced by %s", p, tracer))
		}
	}
	return wrong
}

func tracerOf(pid int) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "0"
	}
	_, rest, _ := strings.Cut(string(status), "TracerPid:")
	return strings.Fields(rest)[0]
}

func auditCgroup(i container.Info, up bool) []string {
	g, err := quota.Open(i.Config.CgroupName())
	if err != nil {
		return []string{err.Error()}
	}
	if !up {
		if g.Exists() {
			return []string{i.Config.Name + " has a cgroup: " + fmt.Sprint(g.Dirs())}
		}
		return nil
	}
	frozen, err := g.Frozen()
	if err != nil || frozen {
		return []string{fmt.Sprintf("%s is frozen: %v %v", i.Config.Name, frozen, err)}
	}
	return nil
}

func (s *site) auditVolumes(t testing.TB, want map[string]bool) (wrong []string) {
	t.Helper()
	all, err := s.h.Volumes.List(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if !want[v.Name] && !strings.HasPrefix(v.Name, "template-") {
			wrong = append(wrong, "volume "+v.Name)
		}
	}
	return wrong
}

func (s *site) auditLinks(t testing.TB, want, may map[string]bool) (wrong []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if !want[l.Name] && !may[l.Name] && !s.foreign["link "+l.Name] {
			wrong = append(wrong, "link "+l.Name)
		}
		delete(want, l.Name)
	}
	for name := range want {
		wrong = append(wrong, "no link "+name)
	}
	return wrong
}

// auditTables looks for CRIU's packet filter, which lets nothing pass.
func (s *site) auditTables(pid int) (wrong []string) {
	for _, p := range []int{pid, os.Getpid()} {
		c, err := tablesOf(p)
		if err != nil {
			return []string{err.Error()}
		}
		for _, table := range c {
			if strings.HasPrefix(table.Name, "CRIU-") {
				wrong = append(wrong, "nft table "+table.Name)
			}
		}
	}
	return wrong
}

func tablesOf(pid int) ([]*nftables.Table, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := nftables.New(nftables.WithNetNSFd(int(f.Fd())))
	if err != nil {
		return nil, err
	}
	return c.ListTables()
}

// auditFiles looks for temporary files, mounts and run directories.
func (s *site) auditFiles(t testing.TB, runs map[string]bool) (wrong []string) {
	t.Helper()
	for _, top := range []string{s.run, s.state, s.state + "/containers", s.state + "/snapshots", s.state + "/templates"} {
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if e.IsDir() && (e.Name() == "pool" || e.Name() == "root" || e.Name() == "usage") {
				return fs.SkipDir // containers' files, and what a supervisor writes while it is looked at
			}
			if strings.HasSuffix(path, ".tmp") {
				wrong = append(wrong, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(s.run)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) == 16 && !runs[e.Name()] {
			wrong = append(wrong, "run directory "+e.Name())
		}
	}
	return append(wrong, s.auditMounts(t)...)
}

func (s *site) auditMounts(t testing.TB) (wrong []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(mounts)) {
		f := strings.Fields(text)
		if strings.HasPrefix(f[4], s.base+"/") && f[4] != s.state+"/pool" && !s.foreign["mount "+f[4]] {
			wrong = append(wrong, "mount "+f[4])
		}
	}
	return wrong
}

// auditStrangers looks for processes in the host's network that are no known
// container's supervisor or holder, and for inits of no container.
func (s *site) auditStrangers(t testing.TB, infos []container.Info) (wrong []string) {
	t.Helper()
	known := map[string]bool{}
	for _, i := range infos {
		known["ctctl supervise "+i.Config.Name], known["ctctl hold "+i.Config.Name] = true, true
	}
	found, err := s.matching(func(p proc, _ map[int]proc) bool {
		if p.name == "ledger" && strings.Contains(p.args, s.mark) {
			return !slices.ContainsFunc(infos, func(i container.Info) bool {
				return strings.Contains(p.args+" ", s.mark+"-"+i.Config.Name+" ")
			})
		}
		return p.pid != os.Getpid() && !known[p.args] && !s.foreign[p.String()] && inOurNetwork(p.pid)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		wrong = append(wrong, "process "+p.String())
	}
	return wrong
}

// strangers is what is there that is not the site's.
func (s *site) strangers(t testing.TB) map[string]bool {
	t.Helper()
	there := map[string]bool{}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		there["link "+l.Name] = true
	}
	found, err := s.matching(func(p proc, _ map[int]proc) bool { return inOurNetwork(p.pid) })
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		there[p.String()] = true
	}
	return there
}
