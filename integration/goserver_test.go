package integration_test

import (
	"net/http"
	"testing"
)

// waitAndRun is a process 1 that becomes a program as soon as it is there.
func waitAndRun(path string) []string {
	return []string{"/bin/sh", "-c", "until [ -x " + path + " ]; do sleep 0.05; done; exec " + path}
}

func TestAGoServerComesBackWithItsGoroutines(t *testing.T) {
	open(t) // before building for nothing
	if err := goBuild(built("goserver"), "./testdata/goserver", "CGO_ENABLED=0"); err != nil {
		t.Fatal(err)
	}
	put := func(item string) *http.Request { return request("PUT", "/items", item) }
	live(t, payload{
		command: waitAndRun("/srv/goserver"),
		port:    8080,
		prepare: func(t *testing.T, b *box) { b.install(t, built("goserver"), "/srv/goserver") },
		talk:    func(l *line) session { return web{line: l, put: put, read: "/items"} },
		verify: func(t *testing.T, _ *box, s session) {
			if got, err := s.(web).do(request("GET", "/timers", "")); got != "ticking\n" {
				t.Errorf("got %q, %v", got, err)
			}
		},
	})
}
