package integration_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"golang.org/x/sys/unix"
)

// damagedCode is ctctl's exit code for an image that it refuses.
const damagedCode = 8

// damages are done to an image's directory.
var damages = map[string]struct {
	file string // below the image's directory
	do   func(before []byte) []byte
}{
	"a flipped bit": {"images/pages-1.img", func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	}},
	"a cut file":               {"images/core-1.img", func(b []byte) []byte { return b[:len(b)-1] }},
	"a missing file":           {"images/mm-1.img", func([]byte) []byte { return nil }},
	"an extra file":            {"images/core-9999.img", func([]byte) []byte { return []byte("x") }},
	"a manifest cut off":       {"manifest.json", func(b []byte) []byte { return b[:len(b)/2] }},
	"a newer manifest":         {"manifest.json", func(b []byte) []byte { return replace(b, `"version": 1`, `"version": 1000`) }},
	"a manifest that leads on": {"manifest.json", func(b []byte) []byte { return replace(b, `"core-1.img"`, `"../core-1.img"`) }},
}

func replace(b []byte, from, to string) []byte {
	return []byte(strings.Replace(string(b), from, to, 1))
}

// damage changes a file of an image and returns what puts it back.
func damage(t *testing.T, dir, file string, do func([]byte) []byte) (undo func()) {
	t.Helper()
	path := filepath.Join(dir, file)
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	write := func(b []byte) {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if b != nil {
			err = errors.Join(err, os.WriteFile(path, b, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	had := before != nil
	after := do(append([]byte(nil), before...))
	if string(after) == string(before) {
		t.Fatalf("%s was not changed", path)
	}
	write(after)
	return func() {
		if had {
			write(before)
		} else {
			write(nil)
		}
	}
}

func TestADamagedImageIsRefusedAndNothingIsTouched(t *testing.T) {
	m := newMatrix(t, 2)
	m.must(t, childRequest{Op: "snapshot", Name: mainName, Snap: "one"})
	dir := filepath.Join(m.state, "snapshots", m.info(t, mainName).Config.UID, "one")
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			undo := damage(t, dir, d.file, d.do)
			m.wantCode(t, damagedCode, "", "rollback", mainName, "one")
			undo()
			m.wantUntouched(t)
		})
	}
	m.wantCode(t, 0, "", "rollback", mainName, "one")
}

func TestADamagedImageOfASuspendedContainerIsRefusedAndStays(t *testing.T) {
	m := newMatrix(t, 2)
	m.must(t, childRequest{Op: "suspend", Name: mainName})
	info := m.info(t, mainName)
	dir := filepath.Join(m.state, "snapshots", info.Config.UID, info.State.Suspended)
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			undo := damage(t, dir, d.file, d.do)
			m.wantCode(t, damagedCode, "", "resume", mainName)
			if got := m.status(t, mainName); got != container.Suspended {
				t.Errorf("the container is %s", got)
			}
			undo()
		})
	}
	m.wantCode(t, 0, "", "resume", mainName)
	m.wantAsBefore(t)
}

// reboot ends and removes what a restart of the machine would: all processes,
// cgroups, links, routes and what is in the run root.
func (m *matrix) reboot(t *testing.T) {
	t.Helper()
	info := m.info(t, mainName)
	for _, kind := range []string{"supervise", "hold"} {
		found, err := m.helpers(kind, mainName)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found {
			if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	g, err := quota.Open(info.Config.CgroupName())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(g.KillAll(t.Context()), g.Remove(t.Context()),
		netns.Leave(t.Context(), netns.Config{UID: info.Config.UID, Interfaces: info.Config.Network.Interfaces}, false),
		os.RemoveAll(m.run))
	if err != nil {
		t.Fatal(err)
	}
}

func TestAfterARebootARunningContainerCanBeStartedWithAllThatWasAcknowledged(t *testing.T) {
	m := newMatrix(t, 2)
	m.reboot(t)
	if got := m.status(t, mainName); got != container.Stopped {
		t.Errorf("the container is %s", got)
	}
	m.wantCode(t, 0, "", "start", mainName)
	m.l.settle(t)
	m.wantClean(t)
}

func TestAfterARebootASuspendedContainerResumes(t *testing.T) {
	m := newMatrix(t, 2)
	m.must(t, childRequest{Op: "suspend", Name: mainName})
	m.reboot(t)
	if got := m.status(t, mainName); got != container.Suspended {
		t.Errorf("the container is %s", got)
	}
	m.wantCode(t, 0, "", "resume", mainName)
	m.wantAsBefore(t)
}
