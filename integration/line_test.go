package integration_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"time"
)

// line is a connection whose every read and write has a limit, so that a
// connection that has died silently fails the test soon.
type line struct {
	conn net.Conn
	r    *bufio.Reader
}

const ioTimeout = 20 * time.Second

func newLine(c net.Conn) *line { return &line{conn: c, r: bufio.NewReader(c)} }

func (l *line) Write(b []byte) (int, error) {
	if err := l.conn.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		return 0, err
	}
	return l.conn.Write(b)
}

// ask sends one line and reads one.
func (l *line) ask(question string) (string, error) {
	if _, err := io.WriteString(l, question+"\n"); err != nil {
		return "", err
	}
	answer, err := l.r.ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}
