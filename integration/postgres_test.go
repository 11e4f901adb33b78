package integration_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// postgres is a client in PostgreSQL's protocol 3.0, simple queries only.
type postgres struct {
	*line
	started bool
}

// start sends the startup message; the server trusts everybody.
func (p *postgres) start() error {
	body := []byte("\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00")
	if _, err := p.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)); err != nil {
		return err
	}
	if _, err := p.rows(); err != nil {
		return err
	}
	p.started = true
	// What only this connection's backend knows: it must be the same one later.
	_, err := p.query("CREATE TABLE IF NOT EXISTS items (n serial, item text);" +
		"CREATE TEMPORARY TABLE mine (item text); PREPARE put(text) AS INSERT INTO mine VALUES ($1)")
	return err
}

// query returns the rows, fields separated by a bar.
func (p *postgres) query(sql string) (string, error) {
	if !p.started {
		if err := p.start(); err != nil {
			return "", err
		}
	}
	msg := append([]byte{'Q'}, binary.BigEndian.AppendUint32(nil, uint32(len(sql)+5))...)
	if _, err := p.Write(append(append(msg, sql...), 0)); err != nil {
		return "", err
	}
	return p.rows()
}

// rows reads messages up to ReadyForQuery.
func (p *postgres) rows() (string, error) {
	var rows []string
	var failed error
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(p.r, head); err != nil {
			return "", err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(p.r, body); err != nil {
			return "", err
		}
		switch head[0] {
		case 'E':
			failed = errors.New("postgres: " + strings.ReplaceAll(string(body), "\x00", " "))
		case 'D':
			rows = append(rows, fields(body))
		case 'Z':
			return strings.Join(rows, "\n"), failed
		}
	}
}

// fields reads a DataRow: a count, then lengths (-1 for null) and values.
func fields(b []byte) string {
	var all []string
	for rest := b[2:]; len(rest) >= 4; {
		n := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if n < 0 {
			all = append(all, "null")
			continue
		}
		all = append(all, string(rest[:n]))
		rest = rest[n:]
	}
	return strings.Join(all, "|")
}

func (p *postgres) add(item string) error {
	if _, err := p.query(fmt.Sprintf("INSERT INTO items (item) VALUES ('%s')", item)); err != nil {
		return err
	}
	_, err := p.query(fmt.Sprintf("EXECUTE put('%s')", item))
	return err
}

func (p *postgres) content() (string, error) { return p.query("SELECT n, item FROM items ORDER BY n") }

func TestPostgreSQLComesBackWithItsData(t *testing.T) {
	const script = `
set -- $(pg_lsclusters -h)
echo 'host all all all trust' >>/etc/postgresql/$1/$2/pg_hba.conf
echo "listen_addresses = '*'" >>/etc/postgresql/$1/$2/postgresql.conf
exec pg_ctlcluster --foreground $1 $2 start`
	live(t, payload{
		command: []string{"/bin/sh", "-c", script},
		port:    5432,
		talk:    func(l *line) session { return &postgres{line: l} },
		verify: func(t *testing.T, b *box, s session) {
			p := s.(*postgres)
			for _, user := range strings.Fields(b.exec(t, "ps", "-C", "postgres", "-o", "user=")) {
				if user != "postgres" {
					t.Errorf("a PostgreSQL process runs as %q", user)
				}
			}
			// A new backend can be forked, and the disk is in order.
			for _, sql := range []string{"CHECKPOINT", "VACUUM FULL items", "REINDEX TABLE items"} {
				if _, err := p.query(sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
			if _, err := p.query("SELECT count(*) FROM mine"); err != nil {
				t.Errorf("the session's own table: %v", err)
			}
			p2 := b.connect(t, payload{port: 5432, talk: func(l *line) session { return &postgres{line: l} }})
			if got, want := content(t, p2), content(t, s); got != want {
				t.Errorf("another session sees %q, not %q", got, want)
			}
		},
	})
}
