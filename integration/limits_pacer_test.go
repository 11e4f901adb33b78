package integration_test

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// pacer asks a server at a steady rate over one connection, whether it is slow or
// not: an answer counts from when its question was due, so that one that is late
// makes those late that wait behind it.
type pacer struct {
	redis
	every time.Duration
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	samples []sample
	err     error
}

// sample is one question, when it was due and how long its answer took from then.
type sample struct {
	due  time.Time
	took time.Duration
}

// startPacer begins to ask a redis at addr, at a rate per second.
func startPacer(t *testing.T, addr string, rate int) *pacer {
	t.Helper()
	var conn net.Conn
	awaitThat(t, "the server answers", func() (ok bool) {
		var err error
		conn, err = net.DialTimeout("tcp", addr, time.Second)
		return err == nil
	})
	p := &pacer{
		redis: redis{newLine(conn)}, every: time.Second / time.Duration(rate),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	go func() {
		defer close(p.ended)
		defer conn.Close()
		p.run()
	}()
	return p
}

func (p *pacer) run() {
	for due := time.Now(); ; due = due.Add(p.every) {
		select {
		case <-p.stop:
			return
		case <-time.After(time.Until(due)):
		}
		_, err := p.do("INCR paced")
		p.mu.Lock()
		p.samples, p.err = append(p.samples, sample{due, time.Since(due)}), err
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// during lets some time pass, and returns how long the answers took that were due in it.
func (p *pacer) during(t *testing.T, span time.Duration) []time.Duration {
	t.Helper()
	from := time.Now()
	to := from.Add(span)
	for answered := false; !answered; {
		select {
		case <-p.ended:
			p.wantNoFailure(t)
			t.Fatal("nobody asks any more")
		case <-time.After(10 * time.Millisecond):
		}
		p.mu.Lock()
		answered = len(p.samples) > 0 && p.samples[len(p.samples)-1].due.After(to)
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var took []time.Duration
	for _, s := range p.samples {
		if s.due.After(from) && !s.due.After(to) {
			took = append(took, s.took)
		}
	}
	return took
}

func (p *pacer) wantNoFailure(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		t.Fatalf("after %d answers: %v", len(p.samples), p.err)
	}
}

// end stops it; none of its questions may have failed.
func (p *pacer) end(t *testing.T) (asked int) {
	t.Helper()
	close(p.stop)
	<-p.ended
	p.wantNoFailure(t)
	return len(p.samples)
}

// quantile is the smallest time within which that part of the answers came.
func quantile(took []time.Duration, part float64) time.Duration {
	if len(took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(took))
	return sorted[min(len(sorted)-1, int(part*float64(len(sorted))))]
}
