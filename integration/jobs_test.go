package integration_test

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"
)

//go:embed testdata/jobs.bash
var jobsScript string

// asker is a client of a program that answers lines with lines.
type asker struct{ *line }

func (a asker) add(item string) error {
	answer, err := a.ask("add " + item)
	if err == nil && !strings.HasPrefix(answer, "ok") {
		err = fmt.Errorf("add: %q", answer)
	}
	return err
}

func (a asker) content() (string, error) {
	answer, err := a.ask("content")
	if err == nil && answer == "" {
		err = fmt.Errorf("content: an empty answer")
	}
	return answer, err
}

func TestAShellComesBackWithItsJobs(t *testing.T) {
	live(t, payload{
		command: []string{"/bin/bash", "-c", jobsScript},
		port:    7000,
		talk:    func(l *line) session { return asker{l} },
		verify: func(t *testing.T, _ *box, s session) {
			got := content(t, s)
			for _, want := range []string{"[2] Stopped", "[3] Stopped", " %2=T,1", " %3=T,1", " %4=S,1"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in %q", want, got)
				}
			}
			if woke, err := s.(asker).ask("wake"); err != nil || woke != "yes" {
				t.Errorf("the stopped job was continued: %q, %v", woke, err)
			}
			if now := content(t, s); now != got {
				t.Errorf("after continuing and stopping a job %q, not %q", now, got)
			}
		},
	})
}
