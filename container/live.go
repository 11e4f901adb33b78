package container

import (
	"path/filepath"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/quota"
)

// Live is a container's running instance as one may look at it without holding
// it: it can end, or an operation begin, at any moment.
type Live struct {
	Info
	Runtime *runc.Container
	Group   quota.Group
}

// Live finds the running instance of a container. Errors: ErrNotFound, StateError
// unless it runs or is paused.
func (m *Manager) Live(name string) (Live, error) {
	info, err := m.get(name)
	if err != nil {
		return Live{}, &OpError{Op: "look at", Name: name, Err: err}
	}
	if info.Status != Running && info.Status != Paused {
		err := &StateError{Op: "looking at its processes", Status: info.Status, Need: []Status{Running, Paused}}
		return Live{}, &OpError{Op: "look at", Name: name, Err: err}
	}
	l := Live{Info: info}
	if l.Runtime, err = runc.Load(filepath.Join(m.runDir(info.Config.UID), "runtime"), info.Config.UID); err == nil {
		l.Group, err = quota.Open(info.Config.CgroupName())
	}
	if err != nil {
		return Live{}, &OpError{Op: "look at", Name: name, Err: err}
	}
	return l, nil
}
