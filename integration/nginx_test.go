package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// web is an HTTP/1.1 client with one kept-alive connection.
type web struct {
	*line
	put  func(item string) *http.Request
	read string // path that shows everything
}

func (w web) do(req *http.Request) (string, error) {
	if err := req.Write(w); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(w.r, req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode >= 300 {
		return "", fmt.Errorf("%s %s: %s: %s", req.Method, req.URL, res.Status, body)
	}
	if res.Close {
		return "", fmt.Errorf("%s %s: the server ends the connection", req.Method, req.URL)
	}
	return string(body), nil
}

func request(method, path, body string) *http.Request {
	req, err := http.NewRequest(method, "http://box"+path, strings.NewReader(body)) //nolint:noctx // the connection has its own limit
	if err != nil {
		panic(err) // a constant is wrong
	}
	return req
}

func (w web) add(item string) error {
	_, err := w.do(w.put(item))
	return err
}

func (w web) content() (string, error) { return w.do(request("GET", w.read, "")) }

func TestNginxComesBackWithItsFiles(t *testing.T) {
	const script = `
mkdir -p /srv/www/d && chown www-data /srv/www/d
cat >/etc/nginx/nginx.conf <<'X'
user www-data;
worker_processes 2;
daemon off;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log /var/log/nginx/access.log;
  keepalive_timeout 600;
  keepalive_requests 1000000;
  server {
    listen 80;
    root /srv/www;
    location /d/ { dav_methods PUT; autoindex on; autoindex_format json; }
    location /status { stub_status; }
  }
}
X
exec nginx`
	put := func(item string) *http.Request { return request("PUT", "/d/"+item, item) }
	live(t, payload{
		command: []string{"/bin/sh", "-c", script},
		port:    80,
		talk:    func(l *line) session { return web{line: l, put: put, read: "/d/"} },
		verify: func(t *testing.T, b *box, s session) {
			users := strings.Fields(b.exec(t, "ps", "-C", "nginx", "-o", "user="))
			if strings.Join(users, " ") != "root www-data www-data" {
				t.Errorf("nginx runs as %q", users)
			}
			if got := b.exec(t, "tail", "-n", "1", "/var/log/nginx/access.log"); !strings.Contains(got, ` HTTP/1.1" 20`) {
				t.Errorf("the log ends with %q", got)
			}
			// The counters are in memory that the workers share.
			status, err := s.(web).do(request("GET", "/status", ""))
			if err != nil || !strings.Contains(status, "Active connections: ") {
				t.Errorf("status page: %q, %v", status, err)
			}
			// The master still has its children in hand.
			b.exec(t, "nginx", "-s", "reopen")
		},
	})
}
