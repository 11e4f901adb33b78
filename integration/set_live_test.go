package integration_test

import (
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// codeRefused is ctctl's exit code when the host can't do what was asked for.
const codeRefused = 8

// stream asks one server over one connection as fast as it answers.
type stream struct {
	redis
	stop  chan struct{}
	ended chan struct{}
	asked atomic.Int64
	err   error // after ended
}

func startStream(t *testing.T, addr string) *stream {
	t.Helper()
	var conn net.Conn
	awaitThat(t, "the server answers", func() (ok bool) {
		var err error
		conn, err = net.DialTimeout("tcp", addr, time.Second)
		return err == nil
	})
	s := &stream{redis: redis{newLine(conn)}, stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		defer conn.Close()
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			if _, s.err = s.do("INCR asked"); s.err != nil {
				return
			}
			s.asked.Add(1)
		}
	}()
	return s
}

// goesOn waits until it has had some answers more.
func (s *stream) goesOn(t *testing.T, when string) {
	t.Helper()
	want := s.asked.Load() + 20
	for end := time.Now().Add(ioTimeout); s.asked.Load() < want; time.Sleep(time.Millisecond) {
		select {
		case <-s.ended:
			t.Fatalf("%s: %v", when, s.err)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s: no answers any more", when)
		}
	}
}

func (s *stream) end(t *testing.T) {
	t.Helper()
	close(s.stop)
	<-s.ended
	if s.err != nil {
		t.Error(s.err)
	}
}

// Every setting of a running server, changed and changed back, with a client that
// asks all the time over one connection: none of its questions fails.
func TestASetServerDoesNotNotice(t *testing.T) {
	r := open(t)
	b := r.create(t, "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")
	r.ctctl(t, "start", b.name)
	s := startStream(t, net.JoinHostPort(b.addr, "6379"))
	s.goesOn(t, "at first")
	done := 0
	for _, pair := range [][2]string{
		{"--cpus 0.5", "--cpus none"},
		{"--cpu-weight 50", "--cpu-weight default"},
		{"--cpuset 0", "--cpuset none"},
		{"--memory 256M", "--memory 1G"},
		{"--swap 64M", "--swap 0"},
		{"--memory-high 128M", "--memory-high none"},
		{"--memory-min 32M", "--memory-min none"},
		{"--pids 100", "--pids 4096"},
		{"--io-weight 200", "--io-weight default"},
		{"--io-read pool=50MB/s,1000iops", "--io-read pool=none"},
		{"--io-write pool=50MB/s,1000iops", "--io-write pool=none"},
		{"--disk 1G --disk-warn 90", "--disk none --disk-warn none"},
		{"--hostname other", "--hostname " + b.name},
		{"--dns 192.0.2.53 --search example.org", "--dns none --search none"},
		{"--onboot yes --restart always", "--onboot no --restart no"},
		{"--ip-add 10.97.1.1 --ip-add fd97::1", "--ip-del 10.97.1.1 --ip-del fd97::1"},
		{"--rate-egress 200mbit --rate-ingress 200mbit", "--rate-egress none --rate-ingress none"},
		{"--publish 16379:6379", "--unpublish 16379/tcp"},
	} {
		for _, flags := range pair {
			res := r.try(t, append([]string{"set", b.name, "--no-probe"}, strings.Fields(flags)...)...)
			if res.code == codeRefused { // what this host has no controller for
				t.Logf("refused: %s: %s", flags, strings.TrimSpace(res.stderr))
				break
			}
			if res.err != nil {
				t.Fatal(res)
			}
			done++
			s.goesOn(t, flags)
		}
	}
	s.end(t)
	t.Log(strconv.FormatInt(s.asked.Load(), 10), "answers during", done, "changes")
}
