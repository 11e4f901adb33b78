package vmrig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// qmpTimeout bounds one command to QEMU. Saving a machine's memory to a busy disk
// is the slowest one.
const qmpTimeout = 3 * time.Minute

// monitor speaks QEMU's machine protocol, one command at a time. Events are
// skipped: what has happened is asked for.
type monitor struct {
	mu   sync.Mutex
	conn net.Conn
	in   *json.Decoder
}

// dialMonitor connects and agrees on the protocol.
func dialMonitor(ctx context.Context, socket string) (*monitor, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, in: json.NewDecoder(bufio.NewReader(conn))}
	if err := m.execute("qmp_capabilities", nil, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

func (m *monitor) close() error { return m.conn.Close() }

// execute runs a command and stores what it returns in result, unless that is nil.
func (m *monitor) execute(command string, arguments, result any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conn.SetDeadline(time.Now().Add(qmpTimeout)); err != nil {
		return fmt.Errorf("qemu %s: %w", command, err)
	}
	request := struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return fmt.Errorf("qemu %s: %w", command, err)
	}
	raw, err := m.answer()
	if err == nil && result != nil {
		err = json.Unmarshal(raw, result)
	}
	if err != nil {
		return fmt.Errorf("qemu %s: %w", command, err)
	}
	return nil
}

// answer reads until the answer to the one command that is in progress.
func (m *monitor) answer() (json.RawMessage, error) {
	for {
		var a struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := m.in.Decode(&a); err != nil {
			return nil, err
		}
		switch {
		case a.Error != nil:
			return nil, errors.New(a.Error.Desc)
		case a.Return != nil:
			return a.Return, nil
		}
	}
}

// human runs a command of QEMU's monitor for people, which says something only
// when it fails.
func (m *monitor) human(line string) error {
	var said string
	err := m.execute("human-monitor-command", map[string]string{"command-line": line}, &said)
	if err == nil && strings.TrimSpace(said) != "" {
		err = fmt.Errorf("qemu %s: %s", line, strings.TrimSpace(said))
	}
	return err
}
