package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/netns"
)

// restore brings init back from an image. The network is plugged into the new
// namespace while CRIU waits, and its host side joins only when CRIU unlocks: a
// packet that came in between would be answered with a reset.
func (s *supervisor) restore(ctx context.Context, req launchRequest) (*instance, error) {
	began := time.Now()
	rt, err := runc.Restore(req.Image.Runtime, req.Spec)
	if err != nil {
		return nil, err
	}
	work := filepath.Join(s.m.runDir(req.UID), "work")
	if err := os.MkdirAll(work, 0o711); err != nil {
		return nil, err
	}
	masters := new(masters)
	pid, stats, err := s.m.CRIU.Restore(ctx, criu.RestoreOptions{
		Images: req.Image.Dir, Work: work, Root: req.Spec.Rootfs, TCPClose: req.Image.TCPClose, OwnNetNS: true,
		External: rt.External(), Place: rt.Place, CgroupRootsFromSelf: true, Sibling: true, Deadline: req.Timeout,
		Kill: func() error { return s.group.KillAll(ctx) },
		Notify: func(ctx context.Context, ev criu.Event) error {
			return s.onRestore(ctx, req, rt, ev, masters)
		},
	})
	if err != nil {
		clean := context.WithoutCancel(ctx)
		masters.close()
		s.keepLog(err, work)
		return nil, errors.Join(err, s.group.KillAll(clean), netns.Leave(clean, req.Net, true), rt.Undo(), s.group.Remove(clean))
	}
	s.phase("restore", began)
	s.phases = append(s.phases, phase{Name: "restore.forking", Took: stats.Forking}, phase{Name: "restore.memory", Took: stats.Restore})
	began = time.Now()
	inst := &instance{pid: pid, wait: func() (int, error) { return waitChild(pid) }}
	// CRIU brings the freezer back as it was at the cut: frozen.
	err = s.group.Thaw()
	if err == nil {
		err = s.serveConsole(masters.take())
	}
	if err == nil {
		err = s.record(pid)
	}
	if err != nil {
		s.discard(inst)
		return nil, err
	}
	s.phase("resume", began)
	return inst, nil
}

func (s *supervisor) onRestore(ctx context.Context, req launchRequest, rt *runc.Restored, ev criu.Event, masters *masters) error {
	began := time.Now()
	switch ev.Script {
	case criu.EventSetupNamespaces:
		if err := netns.Attach(ctx, ev.PID, req.Net); err != nil {
			return err
		}
		s.phase("restore.network", began)
	case criu.EventPostRestore:
		if err := rt.Save(ev.PID); err != nil {
			return fmt.Errorf("record the runtime state: %w", err)
		}
	case criu.EventNetworkUnlock:
		if err := netns.Join(ctx, req.Net); err != nil {
			return err
		}
		s.phase("restore.join", began)
	case criu.EventPreResume:
		pid, err := rt.PID()
		if err != nil {
			return err
		}
		pids, err := s.group.PIDs()
		if err != nil {
			return err
		}
		if err := rt.Check(pid, pids); err != nil {
			return err
		}
		return masters.complete(pid, req.Spec.IDs)
	case criu.EventOrphanPTSMaster:
		return masters.add(ev.Files)
	}
	return nil
}

// waitChild waits for a restored init, which CRIU made a child of this process.
func waitChild(pid int) (int, error) {
	for {
		var ws syscall.WaitStatus
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return -1, fmt.Errorf("wait for init: %w", err)
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}

// keepLog moves CRIU's log to where it outlives the attempt: containers/NAME/restore.log.
func (s *supervisor) keepLog(err error, work string) {
	var ce *criu.Error
	if !errors.As(err, &ce) {
		return
	}
	kept := filepath.Join(s.m.dir(s.req.Name), "restore.log")
	text, rerr := os.ReadFile(filepath.Join(work, "restore.log"))
	if rerr == nil {
		rerr = os.WriteFile(kept, text, 0o600)
	}
	if rerr != nil {
		s.log.Error("keep the log", "err", rerr)
		return
	}
	ce.Log = kept
}
