package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

const (
	pingEvery   = time.Millisecond
	pingTimeout = 30 * time.Second
	// settle is how long a client pings before and after what is measured.
	settle = 30 * time.Millisecond
	// lastAnswers is how long the answers to the last bytes may take.
	lastAnswers = 5 * time.Second
)

// ping sends a byte and waits for its echo.
func ping(c net.Conn, limit time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	b := []byte{'p'}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := c.Read(b)
	return err
}

// dial waits until the payload listens.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	for end := time.Now().Add(pingTimeout); ; {
		c, err := d.DialContext(ctx, "tcp4", addr)
		if err == nil {
			return c, ping(c, pingTimeout)
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, fmt.Errorf("the container does not answer: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// longestWait is the longest that a client waits for an answer while f runs who
// sends the next byte a millisecond after the last, or when it has the answer. What
// is sent while CRIU filters packets is lost, and sent again only when the client's
// retransmission timer fires, after 200 ms at least (tcp(7)).
func longestWait(c net.Conn, f func() error) (time.Duration, error) {
	stop := make(chan struct{})
	type outcome struct {
		longest time.Duration
		err     error
	}
	result := make(chan outcome, 1)
	go func() { // ends when stop is closed and the last ping was answered
		var o outcome
		for o.err == nil {
			select {
			case <-stop:
				result <- o
				return
			default:
			}
			began := time.Now()
			o.err = ping(c, pingTimeout)
			took := time.Since(began)
			o.longest = max(o.longest, took)
			time.Sleep(pingEvery - took)
		}
		result <- o
	}()
	time.Sleep(settle)
	err := f()
	time.Sleep(settle)
	close(stop)
	o := <-result
	if err == nil && o.err != nil {
		err = fmt.Errorf("the client's connection: %w", o.err)
	}
	return o.longest, err
}

// longestGap is the longest time between two answers that a client gets while f
// runs who sends a byte every millisecond and does not wait for the answer before
// it sends the next. What is sent while CRIU filters packets is lost; the answers to
// what comes later tell the client's kernel to send it again.
func longestGap(c net.Conn, f func() error) (time.Duration, error) {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return 0, err
	}
	stop, sent := make(chan struct{}), make(chan int64, 1)
	go func() { // ends when stop is closed
		n := int64(0)
		for {
			select {
			case <-stop:
				sent <- n
				return
			case <-time.After(pingEvery):
			}
			if k, err := c.Write([]byte{'p'}); err == nil {
				n += int64(k)
			}
		}
	}()
	var got atomic.Int64
	gap := make(chan time.Duration, 1)
	go func() { gap <- readOn(c, &got) }()
	time.Sleep(settle)
	err := f()
	time.Sleep(settle)
	close(stop)
	n := <-sent
	for end := time.Now().Add(lastAnswers); got.Load() < n && time.Now().Before(end); {
		time.Sleep(pingEvery)
	}
	err = errors.Join(err, c.SetReadDeadline(time.Now())) // ends readOn
	longest := <-gap
	if err == nil && got.Load() != n {
		err = fmt.Errorf("the client sent %d bytes and got %d back", n, got.Load())
	}
	return longest, err
}

// readOn counts what it reads, until there is an error, and gives the longest time
// between two reads.
func readOn(c net.Conn, got *atomic.Int64) (longest time.Duration) {
	b := make([]byte, 4096)
	last := time.Now()
	for {
		k, err := c.Read(b)
		if err != nil {
			return longest
		}
		got.Add(int64(k))
		longest = max(longest, time.Since(last))
		last = time.Now()
	}
}

// clients are two who are connected while something is done to the container.
type clients struct{ waits, sends net.Conn }

func connect(ctx context.Context, addr string) (c clients, err error) {
	if c.waits, err = dial(ctx, addr); err != nil {
		return c, err
	}
	if c.sends, err = dial(ctx, addr); err != nil {
		return c, errors.Join(err, c.waits.Close())
	}
	return c, nil
}

func (c clients) close() error { return errors.Join(c.waits.Close(), c.sends.Close()) }

// during runs f and gives what longestWait and longestGap see of it.
func (c clients) during(f func() error) (p pause, err error) {
	p.wait, err = longestWait(c.waits, func() (err error) {
		p.gap, err = longestGap(c.sends, f)
		return err
	})
	return p, err
}

type pause struct{ wait, gap time.Duration }

// pauses are those of several runs.
type pauses struct{ waits, gaps sample }

func (s *pauses) add(p pause) { s.waits, s.gaps = append(s.waits, p.wait), append(s.gaps, p.gap) }

const (
	// givesUp is how long the client of outage waits before it calls its
	// connection dead. It must be longer than it takes from the freeze to the
	// unplugging: CRIU does not dump connections that were not accepted yet.
	givesUp = 20 * time.Millisecond
	// connects is how long it waits for a new connection to answer.
	connects = 5 * time.Millisecond
)

// outage is how long a client goes without an answer while f runs. It pings every
// millisecond and connects anew when its connection is dead.
func outage(addr string, f func() error) (time.Duration, error) {
	returned := make(chan struct{})
	result := make(chan time.Duration, 1)
	go func() { result <- longestOutage(addr, returned) }()
	time.Sleep(settle)
	err := f()
	close(returned)
	longest := <-result
	if err == nil && longest < 0 {
		err = fmt.Errorf("no answer from %s in %v", addr, pingTimeout)
	}
	return longest, err
}

// longestOutage goes on until it has an answer after returned is closed; negative
// if there is none.
func longestOutage(addr string, returned <-chan struct{}) (longest time.Duration) {
	var c net.Conn
	last, end := time.Now(), time.Time{}
	for end.IsZero() || time.Now().Before(end) {
		if c = answered(c, addr); c != nil {
			longest = max(longest, time.Since(last))
			last = time.Now()
			if !end.IsZero() {
				c.Close()
				return longest
			}
		}
		select {
		case <-returned:
			if end.IsZero() {
				end = time.Now().Add(pingTimeout)
			}
		default:
		}
		time.Sleep(pingEvery)
	}
	return -1
}

// answered gives the connection that brought an answer: c, or without one a new
// connection; nil if there was none.
func answered(c net.Conn, addr string) net.Conn {
	patience := givesUp
	if c == nil {
		var err error
		if c, err = net.DialTimeout("tcp4", addr, connects); err != nil {
			return nil
		}
		patience = connects
	}
	if ping(c, patience) == nil {
		return c
	}
	c.Close()
	return nil
}
