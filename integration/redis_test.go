package integration_test

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// redis is a client in the RESP protocol.
type redis struct{ *line }

func (r redis) do(command string) (string, error) {
	if _, err := io.WriteString(r, command+"\r\n"); err != nil {
		return "", err
	}
	return r.reply()
}

func (r redis) reply() (string, error) {
	head, err := r.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	head = strings.TrimSuffix(head, "\r\n")
	if head == "" {
		return "", fmt.Errorf("redis: empty reply")
	}
	kind, rest := head[0], head[1:]
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", fmt.Errorf("redis: %s", rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return "", fmt.Errorf("redis: %q: %w", head, err)
	}
	if n < 0 {
		return "", nil // null
	}
	if kind == '$' {
		b := make([]byte, n+2)
		_, err := io.ReadFull(r.r, b)
		return string(b[:n]), err
	}
	var all []string // kind is '*'
	for range n {
		one, err := r.reply()
		if err != nil {
			return "", err
		}
		all = append(all, one)
	}
	return strings.Join(all, "\n"), nil
}

func (r redis) add(item string) error {
	_, err := r.do("RPUSH items " + item)
	return err
}

func (r redis) content() (string, error) { return r.do("LRANGE items 0 -1") }

func TestRedisComesBackWithItsData(t *testing.T) {
	live(t, payload{
		command: []string{
			"setpriv", "--reuid=redis", "--regid=redis", "--clear-groups", "redis-server",
			"--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/var/lib/redis",
			"--appendonly", "yes", "--save", "", "--enable-debug-command", "yes",
		},
		port: 6379,
		talk: func(l *line) session { return redis{l} },
		verify: func(t *testing.T, b *box, s session) {
			if got := strings.Fields(b.exec(t, "ps", "-C", "redis-server", "-o", "user="))[0]; got != "redis" {
				t.Errorf("redis runs as %q", got)
			}
			// What is on disk must be what is in memory.
			want := content(t, s)
			if _, err := s.(redis).do("DEBUG LOADAOF"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, content(t, s)); diff != "" {
				t.Errorf("read from disk (-memory +disk):\n%s", diff)
			}
		},
	})
}
