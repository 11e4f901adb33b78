package integration_test

import (
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// entries is what a ledger has: how many numbers, the last, a hash over all. It
// is computed here and by the program in the container, from what was
// acknowledged and from what it has.
type entries struct {
	count, last, hash uint64
}

func (e entries) with(v uint64) entries {
	h := fnv.New64a()
	fmt.Fprintf(h, "%x %x", e.hash, v)
	return entries{e.count + 1, v, h.Sum64()}
}

// ledger is the client of one container: it adds numbers, one at a time, asking
// again until each is acknowledged, and knows what must be there.
type ledger struct {
	addr string
	conn *line

	mu   sync.Mutex
	now  entries // all acknowledged
	next uint64  // not acknowledged yet, perhaps there
	// back is what a rollback that may just be happening leads to.
	back   *entries
	went   bool  // there
	wrong  error // the first answer that can't be
	acks   int
	stop   chan struct{}
	writer sync.WaitGroup
}

func newLedger(address string) *ledger {
	return &ledger{addr: fmt.Sprintf("%s:%d", netip.MustParsePrefix(address).Addr(), ledgerPort), next: 1}
}

// clientPatience is how long a client waits for an answer before it connects anew.
const clientPatience = 700 * time.Millisecond

func (l *ledger) ask(question string) (string, error) {
	if l.conn == nil {
		conn, err := dialLedger(l.addr)
		if err != nil {
			return "", err
		}
		l.conn = conn
	}
	answer, err := l.conn.askWithin(question, clientPatience)
	if err != nil {
		l.hangUp()
	}
	return answer, err
}

func (l *line) askWithin(question string, d time.Duration) (string, error) {
	if err := l.conn.SetDeadline(time.Now().Add(d)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(l.conn, question); err != nil {
		return "", err
	}
	answer, err := l.r.ReadString('\n')
	return answer, err
}

func dialLedger(addr string) (*line, error) {
	conn, err := net.DialTimeout("tcp", addr, clientPatience)
	if err != nil {
		return nil, err
	}
	return newLine(conn), nil
}

func (l *ledger) hangUp() {
	if l.conn != nil {
		l.conn.conn.Close()
		l.conn = nil
	}
}

// add asks once for the next number to be written down.
func (l *ledger) add() error {
	answer, err := l.ask(fmt.Sprintf("add %d", l.next))
	if err != nil {
		return err
	}
	var got entries
	if _, err := fmt.Sscanf(answer, "%d %d %x", &got.count, &got.last, &got.hash); err != nil {
		l.hangUp()
		return fmt.Errorf("answer %q: %w", answer, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case got == l.now.with(l.next):
	case l.back != nil && got == l.back.with(l.next):
		l.went = true
	default:
		err := fmt.Errorf("after adding %d the ledger has %+v, acknowledged was %+v, a rollback leads to %+v", l.next, got, l.now, l.back)
		if l.wrong == nil {
			l.wrong = err
		}
		return err
	}
	l.now = got
	l.next++
	l.acks++
	return nil
}

// write adds numbers until pause is called.
func (l *ledger) write() {
	l.stop = make(chan struct{})
	l.writer.Go(func() {
		for {
			wait := 2 * time.Millisecond
			if l.add() != nil {
				wait = 20 * time.Millisecond
			}
			select {
			case <-l.stop:
				return
			case <-time.After(wait):
			}
		}
	})
}

func (l *ledger) pause() {
	if l.stop != nil {
		close(l.stop)
		l.writer.Wait()
		l.stop = nil
	}
}

// acknowledged is how many numbers were up to now.
func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// serves says whether a write is acknowledged in time. The writer must be running.
func (l *ledger) serves(d time.Duration) bool {
	before := l.acknowledged()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if l.acknowledged() > before {
			return true
		}
	}
	return false
}

// mayGoBack says what a rollback leads to; nil when none is under way.
func (l *ledger) mayGoBack(to *entries) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back, l.went = to, false
}

// settle waits until a write is acknowledged and then compares what the ledger
// has in memory and on disk with what was acknowledged. The writer must be paused.
func (l *ledger) settle(t testing.TB) entries {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = l.add(); err == nil || l.wrong != nil {
			break
		}
	}
	if l.wrong != nil {
		t.Fatal(l.wrong)
	}
	if err != nil {
		t.Fatalf("the ledger does not answer: %v", err)
	}
	answer, err := l.ask("show")
	if err != nil {
		t.Fatal(err)
	}
	var memory, disk entries
	_, err = fmt.Sscanf(answer, "%d %d %x %d %d %x", &memory.count, &memory.last, &memory.hash, &disk.count, &disk.last, &disk.hash)
	if err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	if memory != l.now || disk != l.now {
		t.Fatalf("the ledger has %+v in memory and %+v on disk, acknowledged was %+v", memory, disk, l.now)
	}
	return l.now
}
