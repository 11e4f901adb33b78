package integration_test

import (
	"net"
	"strings"
	"testing"
)

// codeRestoreFailed is ctctl's exit code for a restore that failed and was undone.
const codeRestoreFailed = 11

// A suspended container's connections are in its images, and so are their addresses.
func TestAResumeNamesTheAddressThatAConnectionLacks(t *testing.T) {
	const second = "10.97.8.2"
	r := open(t)
	b := r.create(t, openRedis...)
	r.ctctl(t, "set", b.name, "--no-probe", "--ip-add", second)
	r.ctctl(t, "start", b.name)
	awaitThat(t, "the server answers", func() bool { return answers(second) == nil })
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(second, "6379"), clientPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := newLine(conn)
	ask := func(when string) {
		t.Helper()
		if answer, err := client.ask("PING"); err != nil || answer != "+PONG\r" {
			t.Fatalf("%s: %q, %v", when, answer, err)
		}
	}
	ask("before")
	r.ctctl(t, "suspend", b.name)
	r.ctctl(t, "set", b.name, "--ip-del", second)
	res := r.try(t, "resume", b.name)
	if res.code != codeRestoreFailed || !strings.Contains(res.stderr, second+", port 6379") || !strings.Contains(res.stderr, "--ip-add") {
		t.Errorf("exit code %d:\n%s", res.code, res.stderr)
	}
	b.wantStatus(t, "suspended")
	r.ctctl(t, "set", b.name, "--no-probe", "--ip-add", second)
	r.ctctl(t, "resume", b.name)
	ask("resumed")
	r.ctctl(t, "set", b.name, "--ip-del", second)
	if err := answers(b.addr); err != nil {
		t.Errorf("the first address: %v", err)
	}
}
