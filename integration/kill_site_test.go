package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/testutil"
)

// site is a state root and a run root for tests that break things, with a
// template that has nothing in it but the program ledger. Operations are done by
// child processes; h only looks. What is not the site's own, as it was when the
// site was made, is left out of what is looked at.
type site struct {
	base, state, run string

	h       *host.Host
	mark    string // in the command line of each ledger
	address int    // of the next container
	foreign map[string]bool
}

const (
	ledgerPort = 7000
	// childTimeout bounds one operation that is not killed.
	childTimeout = 90 * time.Second
)

// ledgerProgram compiles it; what is kept of it is in memory.
var ledgerProgram = sync.OnceValues(func() (program []byte, err error) {
	out := built("ledger")
	if err := goBuild(out, "./testdata/ledger", "CGO_ENABLED=0"); err != nil {
		return nil, err
	}
	program, err = os.ReadFile(out)
	return program, errors.Join(err, os.Remove(out))
})

// ledgerRoot makes a root file system.
func (s *site) ledgerRoot() (root string, err error) {
	program, err := ledgerProgram()
	if err != nil {
		return "", err
	}
	root = filepath.Join(s.base, "root")
	for _, d := range []string{"sbin", "etc", "proc", "sys", "dev", "run", "tmp"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	return root, errors.Join(err, os.WriteFile(filepath.Join(root, "sbin", "ledger"), program, 0o755))
}

// newSite makes one; setUp, if any, is called before anything is in the state root.
func newSite(t testing.TB, setUp ...func(*site)) *site {
	t.Helper()
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.Btrfs, testutil.UserNS, testutil.CgroupV2)
	// Every directory on the way to the run root must be open for the
	// container's root, who is another user.
	base, err := os.MkdirTemp(os.TempDir(), "site-*")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o711); err != nil {
		t.Fatal(err)
	}
	s := &site{
		base: base, state: filepath.Join(base, "state"), run: filepath.Join(base, "run"),
		mark: fmt.Sprintf("mark-%d-%s", os.Getpid(), filepath.Base(base)),
	}
	s.foreign = s.strangers(t)
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil { // nothing is mounted below: detach has said so
			t.Error(err)
		}
	})
	for _, f := range setUp {
		f(s)
	}
	root, err := s.ledgerRoot()
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, childRequest{Op: "import", Template: "ledger", Command: []string{root}})
	if s.h, err = host.Open(t.Context(), host.Options{StateRoot: s.state, RunRoot: s.run}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(t) })
	return s
}

// close destroys what there is and frees the pool; nothing may be left.
func (s *site) close(t testing.TB) {
	if t.Failed() {
		t.Log(s.logs())
	}
	s.must(t, childRequest{Op: "repair"})
	names, err := s.h.Containers.Names()
	if err != nil {
		t.Error(err)
	}
	for _, n := range names {
		s.must(t, childRequest{Op: "destroy", Name: n})
	}
	s.wantClean(t)
	if err := s.h.Close(); err != nil {
		t.Error(err)
	}
	s.must(t, childRequest{Op: "detach"})
}

// do runs an operation to its end.
func (s *site) do(t testing.TB, req childRequest) childReply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), childTimeout)
	defer cancel()
	c, err := s.spawn(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.reply()
	if err != nil {
		t.Fatalf("%v\n%s", err, s.logs())
	}
	return r
}

// must runs an operation that has to succeed.
func (s *site) must(t testing.TB, req childRequest) childReply {
	t.Helper()
	r := s.do(t, req)
	if r.Error != "" {
		t.Fatalf("%s %s: %s\n%s", req.Op, req.Name, r, s.logs())
	}
	return r
}

// ledgerRequest asks for a container that keeps a ledger.
func (s *site) ledgerRequest(name string, mib int) childRequest {
	s.address++
	return childRequest{
		Op: "create", Name: name, Template: "ledger", Address: fmt.Sprintf("10.98.%d.%d/32", s.address/200, s.address%200+2),
		Command: []string{"/sbin/ledger", fmt.Sprintf(":%d", ledgerPort), "/ledger", s.mark + "-" + name, fmt.Sprint(mib)},
	}
}

// addLedger makes and starts a container that keeps a ledger, and a client for it.
func (s *site) addLedger(t testing.TB, name string, mib int) *ledger {
	t.Helper()
	req := s.ledgerRequest(name, mib)
	s.must(t, req)
	s.must(t, childRequest{Op: "start", Name: name})
	l := newLedger(req.Address)
	l.settle(t)
	return l
}

// logs is what the supervisors have logged.
func (s *site) logs() string { return (&rig{run: s.run}).logs() }

func (s *site) info(t testing.TB, name string) container.Info {
	t.Helper()
	info, err := s.h.Containers.Get(context.WithoutCancel(t.Context()), name)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func (s *site) status(t testing.TB, name string) container.Status {
	t.Helper()
	return s.info(t, name).Status
}
