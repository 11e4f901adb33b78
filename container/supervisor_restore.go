package container

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
)

// restore brings init back from an image. The network is plugged into the new
// namespace while CRIU waits, and its host side joins as the last, when the
// caller has committed: a packet that came in earlier would be answered with a
// reset, and what processes have acknowledged must not be undone.
func (s *supervisor) restore(ctx context.Context, req launchRequest) (*instance, error) {
	began := time.Now()
	rt, err := runc.Restore(req.Image.Runtime, req.Spec)
	if err != nil {
		return nil, err
	}
	work := filepath.Join(s.m.runDir(req.UID), "restore")
	if err := os.MkdirAll(work, 0o711); err != nil {
		return nil, err
	}
	cgroups, err := s.makeCgroups(req, rt)
	if err != nil {
		clean := context.WithoutCancel(ctx)
		return nil, errors.Join(err, rt.Undo(), s.group.Remove(clean))
	}
	masters := new(masters)
	worker := 0
	pid, stats, err := s.m.CRIU.Restore(ctx, criu.RestoreOptions{
		Images: req.Image.Dir, Work: work, Root: req.Spec.Rootfs, TCPClose: req.Image.TCPClose, OwnNetNS: true,
		External: rt.External(), CgroupRootsFromSelf: true, CgroupRoots: cgroups.roots(), Sibling: true, Deadline: req.Timeout,
		Place: func(pid int) error {
			worker = pid
			if err := rt.Place(pid); err != nil {
				return err
			}
			return s.group.Apply(whileRestoring(req.Limits))
		},
		Kill: func() error { return s.group.KillAll(ctx) },
		Notify: func(ctx context.Context, ev criu.Event) error {
			switch ev.Script {
			case criu.EventPostSetupNamespaces:
				return cgroups.enable()
			case criu.EventPreResume:
				return errors.Join(s.complete(rt, req, masters), cgroups.set(), s.holdStill(worker))
			}
			return s.onRestore(ctx, req, rt, ev, masters)
		},
	})
	if err != nil {
		clean := context.WithoutCancel(ctx)
		masters.close()
		s.keepLog(err, work)
		return nil, errors.Join(err, netns.Leave(clean, req.Net, true), s.group.KillAll(clean), rt.Undo(), s.group.Remove(clean))
	}
	s.phase("restore", began)
	cgroups.clear(ctx)
	s.phases = append(s.phases, phase{Name: "restore.forking", Took: stats.Forking}, phase{Name: "restore.memory", Took: stats.Restore})
	began = time.Now()
	inst := &instance{pid: pid, wait: func() (int, error) { return waitChild(pid) }}
	err = s.group.Apply(req.Limits)
	if err == nil {
		err = s.release(ctx, req, pid, masters.take())
	}
	if err != nil {
		// Without a link no peer is told that its connections end.
		err = errors.Join(err, netns.Leave(context.WithoutCancel(ctx), req.Net, true))
		s.discard(inst)
		return nil, err
	}
	s.phase("resume", began)
	return inst, nil
}

// spareTasks is how many tasks CRIU itself may add to a container's while it
// restores them.
const spareTasks = 64

// whileRestoring are the limits that memory and tasks are born in. What only makes
// slower, cpu and io, would make the restore slower, and CRIU is in there too.
func whileRestoring(l quota.Limits) quota.Limits {
	born := quota.Limits{MemoryBytes: l.MemoryBytes, SwapBytes: l.SwapBytes}
	if l.PIDs > 0 {
		born.PIDs = min(l.PIDs+spareTasks, quota.MaxPIDs)
	}
	return born
}

// release lets a restored container run, which CRIU has left frozen. It is
// recorded before the caller commits, so that from then on it can be found even
// should this process end.
func (s *supervisor) release(ctx context.Context, req launchRequest, pid int, console *os.File) error {
	if console != nil {
		if err := s.serveConsole(console); err != nil {
			return err
		}
	}
	if err := s.record(pid); err != nil {
		return err
	}
	// What can be refused is done before, as from the commit on there is no way back.
	if err := netns.Prepare(ctx, req.Net); err != nil {
		return err
	}
	if err := s.askCommit(pid); err != nil {
		return err
	}
	began := time.Now()
	s.plugIn()
	s.phase("restore.join", began)
	if err := s.group.Thaw(); err != nil {
		s.log.Error("thaw", "err", err) // watch tries again
	}
	return nil
}

// plugTimeout bounds one try to plug the network in.
const plugTimeout = 10 * time.Second

// plugIn opens the host's side of the network. The container is committed: should
// it fail, it runs without, and watch tries again.
func (s *supervisor) plugIn() {
	ctx, cancel := context.WithTimeout(context.Background(), plugTimeout)
	defer cancel()
	err := netns.Join(ctx, s.req.Net)
	if s.unplugged = err != nil; s.unplugged {
		s.log.Error("plug the network in", "err", err)
	}
}

// plugAgain is another try, with the network as it is wanted by now.
func (s *supervisor) plugAgain() {
	err := s.underLock("supervisor: plug in", func(_ context.Context, l *Locked) error {
		s.req.Net = l.Effective().netConfig()
		s.plugIn()
		return nil
	})
	if err != nil {
		s.log.Error("plug the network in", "err", err)
	}
}

func (s *supervisor) onRestore(ctx context.Context, req launchRequest, rt *runc.Restored, ev criu.Event, masters *masters) error {
	began := time.Now()
	switch ev.Script {
	case criu.EventSetupNamespaces:
		if err := netns.Attach(ctx, ev.PID, req.Net); err != nil {
			return err
		}
		if err := reinstate(ctx, req.Image.Dir, ev.PID); err != nil {
			return err
		}
		s.phase("restore.network", began)
	case criu.EventPostRestore:
		if err := rt.Save(ev.PID); err != nil {
			return fmt.Errorf("record the runtime state: %w", err)
		}
	case criu.EventOrphanPTSMaster:
		return masters.add(ev.Files)
	}
	return nil
}

// complete is called when all is restored and nothing has run.
func (s *supervisor) complete(rt *runc.Restored, req launchRequest, masters *masters) error {
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
	return masters.complete(pid, pids, req.Spec.IDs, s.log)
}

// holdStill freezes what CRIU is about to let go, so that nothing runs before the
// commit. CRIU itself is in the same cgroup and must not be.
func (s *supervisor) holdStill(worker int) error {
	dir := s.group.Unified()
	if dir == "" {
		return nil
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	own := "/"
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			own = path
		}
	}
	procs := filepath.Join(filepath.Dir(dir), own, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(worker)), 0); err != nil {
		return fmt.Errorf("move criu out of the container: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("1"), 0); err != nil {
		return fmt.Errorf("hold the restored processes: %w", err)
	}
	return nil
}

// askCommit waits for the caller's word that the container may run.
func (s *supervisor) askCommit(pid int) error {
	began := time.Now()
	b, err := json.Marshal(launchReply{PID: pid, Ready: true})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("ask the caller: %w", err)
	}
	word := make([]byte, len(goAhead))
	// No deadline: a caller that lives answers, that of one that died ends.
	n, err := s.conn.Read(word)
	if err == nil && n > 0 && !bytes.Equal(word[:n], goAhead) {
		return errors.New("the caller could not commit")
	}
	if err == nil && !bytes.Equal(word[:n], goAhead) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && !s.wasCommitted() {
		return fmt.Errorf("the caller does not want it any more: %w", err)
	}
	s.committed = true
	s.phase("restore.commit", began)
	return nil
}

// wasCommitted reads from the state whether a caller that died had committed. What
// settles its operation waits for this supervisor first.
func (s *supervisor) wasCommitted() bool {
	_, st, err := s.m.read(s.req.Name)
	return err == nil && s.req.CommitStep != "" && st.Intent != nil && st.Intent.Step == s.req.CommitStep
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
	if err := copyFileOver(filepath.Join(work, "restore.log"), kept); err != nil {
		s.log.Error("keep the log", "err", err)
		return
	}
	ce.Log = kept
}
