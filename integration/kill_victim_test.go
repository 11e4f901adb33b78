package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// proc is one process as /proc shows it.
type proc struct {
	pid, parent int
	state       string
	name        string // comm
	args        string // separated by spaces
}

func (p proc) String() string { return fmt.Sprintf("%d %s (%s)", p.pid, p.name, p.args) }

func procs() ([]proc, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []proc
	for _, d := range dirs {
		stat, err := os.ReadFile(d + "/stat")
		if err != nil {
			continue // it has ended
		}
		open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		rest := strings.Fields(string(stat[end+1:]))
		args, err := os.ReadFile(d + "/cmdline")
		if err != nil || len(rest) < 2 {
			continue
		}
		p := proc{state: rest[0], name: string(stat[open+1 : end])}
		p.args = strings.TrimSpace(string(bytes.ReplaceAll(args, []byte{0}, []byte{' '})))
		p.pid, _ = strconv.Atoi(filepath.Base(d))
		p.parent, _ = strconv.Atoi(rest[1])
		if p.state != "Z" && p.state != "X" {
			all = append(all, p)
		}
	}
	return all, nil
}

// helpers are supervisors and holders, told by their command line, which has the
// name of the container.
func (s *site) helpers(kind, name string) ([]proc, error) {
	return s.matching(func(p proc, _ map[int]proc) bool {
		return p.args == "ctctl "+kind+" "+name && inOurNetwork(p.pid)
	})
}

func inOurNetwork(pid int) bool {
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	own, ownErr := os.Readlink("/proc/self/ns/net")
	return err == nil && ownErr == nil && its == own
}

// criuOf lists the CRIU processes below an operation or a supervisor.
func (s *site) criuOf(c *child, name string) ([]proc, error) {
	return s.matching(func(p proc, all map[int]proc) bool {
		if p.name != "criu" || strings.Contains(p.args, "--version") { // which asks before it does anything
			return false
		}
		for range 8 {
			p = all[p.parent]
			if p.pid == 0 {
				return false
			}
			if p.pid == c.cmd.Process.Pid || p.args == "ctctl supervise "+name && inOurNetwork(p.pid) {
				return true
			}
		}
		return false
	})
}

func (s *site) matching(want func(proc, map[int]proc) bool) ([]proc, error) {
	all, err := procs()
	if err != nil {
		return nil, err
	}
	byPID := map[int]proc{}
	for _, p := range all {
		byPID[p.pid] = p
	}
	var some []proc
	for _, p := range all {
		if want(p, byPID) {
			some = append(some, p)
		}
	}
	return some, nil
}

// A victim is a kind of process that is killed.
const (
	victimCommand    = "command" // ctctl itself
	victimCRIU       = "criu"
	victimSupervisor = "supervisor"
	victimHolder     = "holder"
)

// strike kills a victim of an operation after a delay. It answers what it hit;
// "" when there was none until the operation ended.
func (s *site) strike(c *child, victim string, delay time.Duration, r *rand.Rand) (string, error) {
	find := map[string]func() ([]proc, error){
		victimCommand: func() ([]proc, error) {
			return s.matching(func(p proc, _ map[int]proc) bool { return p.pid == c.cmd.Process.Pid })
		},
		victimCRIU:       func() ([]proc, error) { return s.criuOf(c, c.req.Name) },
		victimSupervisor: func() ([]proc, error) { return s.helpers("supervise", c.req.Name) },
		victimHolder:     func() ([]proc, error) { return s.helpers("hold", c.req.Name) },
	}[victim]
	if victim == victimCRIU { // the delay counts from its beginning
		if err := awaitProc(c, find); err != nil {
			return "", err
		}
	}
	select {
	case <-time.After(delay):
	case <-c.ended:
		return "", nil
	}
	if err := awaitProc(c, find); err != nil {
		return "", err
	}
	found, err := find()
	if err != nil || len(found) == 0 {
		return "", err
	}
	p := found[r.IntN(len(found))]
	return p.String(), killExactly(p, find)
}

// awaitProc waits until there is a victim, or the operation has ended.
func awaitProc(c *child, find func() ([]proc, error)) error {
	for c.running() {
		found, err := find()
		if err != nil || len(found) > 0 {
			return err
		}
		time.Sleep(500 * time.Microsecond)
	}
	return nil
}

// killExactly does not hit another process that has got the pid meanwhile.
func killExactly(p proc, find func() ([]proc, error)) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	still, err := find()
	if err != nil {
		return err
	}
	for _, q := range still {
		if q.pid == p.pid {
			err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
