package integration_test

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// payload is something to run in a container and to talk to from outside.
type payload struct {
	// command is process 1.
	command []string
	port    int
	// prepare, if set, is called once the container has started.
	prepare func(t *testing.T, b *box)
	// talk turns a fresh connection into a session.
	talk func(c *line) session
	// verify, if set, is called when the container has come back and content
	// was found right, for what only this payload has. It must not change the
	// content.
	verify func(t *testing.T, b *box, s session)
}

// session is a client with one TCP connection.
type session interface {
	// add makes the server keep one more item, acknowledged.
	add(item string) error
	// content is everything the server keeps, in a form to compare.
	content() (string, error)
}

// writes is how many items a client adds before and after a snapshot.
const writes = 50

// live takes a payload through the life of a container with snapshots: each
// step with a client connected, whose connection must outlive everything that
// does not go back in time.
func live(t *testing.T, p payload) {
	t.Helper()
	r := open(t)
	t.Parallel()
	b := r.create(t, p.command...)
	r.ctctl(t, "start", b.name)
	if p.prepare != nil {
		p.prepare(t, b)
	}
	s := b.connect(t, p)

	add(t, s, "before", writes)
	want := content(t, s)
	r.ctctl(t, "snapshot", "create", b.name, "one")
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Fatalf("the snapshot has changed what the client sees (-before +after):\n%s", diff)
	}
	add(t, s, "after", writes)
	if content(t, s) == want {
		t.Fatal("the content does not show what was written")
	}

	r.ctctl(t, "rollback", b.name, "one")
	b.wantStatus(t, "running")
	s = b.connect(t, p)
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Fatalf("after the rollback (-snapshot +now):\n%s", diff)
	}
	if p.verify != nil {
		p.verify(t, b, s)
	}

	add(t, s, "again", 3)
	want = content(t, s)
	r.ctctl(t, "snapshot", "create", b.name, "two")
	r.ctctl(t, "suspend", b.name)
	b.wantStatus(t, "suspended")
	r.ctctl(t, "resume", b.name)
	b.wantStatus(t, "running")
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Fatalf("after resume, by the same connection (-suspended +now):\n%s", diff)
	}
	add(t, s, "resumed", 3)
	if p.verify != nil {
		p.verify(t, b, s)
	}

	r.ctctl(t, "rollback", b.name, "two")
	s = b.connect(t, p)
	if diff := cmp.Diff(want, content(t, s)); diff != "" {
		t.Fatalf("after the second rollback (-snapshot +now):\n%s", diff)
	}
	r.ctctl(t, "destroy", "--force", b.name)
	b.wantGone(t)
}

func add(t *testing.T, s session, kind string, n int) {
	t.Helper()
	for i := range n {
		if err := s.add(fmt.Sprintf("%s-%d", kind, i)); err != nil {
			t.Fatalf("write %s-%d: %v", kind, i, err)
		}
	}
}

func content(t *testing.T, s session) string {
	t.Helper()
	c, err := s.content()
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return c
}

// readyTimeout is how long a server may take until it serves.
const readyTimeout = 40 * time.Second

// dialTimeout is short: where nobody answers yet, it is tried again.
const dialTimeout = 2 * time.Second

// connect waits until the payload serves, and returns the session that proved it.
func (b *box) connect(t *testing.T, p payload) session {
	t.Helper()
	addr := net.JoinHostPort(b.addr, strconv.Itoa(p.port))
	var last error
	for end := time.Now().Add(readyTimeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, dialTimeout)
		if err != nil {
			last = err
			continue
		}
		s := p.talk(newLine(conn))
		if _, last = s.content(); last == nil {
			t.Cleanup(func() { conn.Close() })
			return s
		}
		conn.Close()
	}
	t.Fatalf("%s does not serve: %v", addr, last)
	return nil
}
