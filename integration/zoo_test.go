package integration_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"testing"
)

//go:embed testdata/zoo.py
var zooScript string

// zoo is a client of the Python program; its content is made readable for diffs.
type zoo struct{ asker }

func (z zoo) content() (string, error) {
	answer, err := z.asker.content()
	if err != nil {
		return "", err
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(answer), &fields); err != nil {
		return "", fmt.Errorf("%.300q: %w", answer, err)
	}
	nice, err := json.MarshalIndent(fields, "", " ")
	return string(nice), err
}

func TestAPythonProgramComesBackWithAllItHolds(t *testing.T) {
	live(t, payload{
		command: []string{"/usr/bin/python3", "-u", "-c", zooScript},
		port:    7001,
		talk:    func(l *line) session { return zoo{asker{l}} },
		verify: func(t *testing.T, _ *box, s session) {
			var got struct {
				Ticking bool
				Count   int
				Created int
				Locks   string
				Dead    int
				Gone    []string
				Nlink   int `json:"gone nlink"`
			}
			if err := json.Unmarshal([]byte(content(t, s)), &got); err != nil {
				t.Fatal(err)
			}
			if !got.Ticking || got.Count == 0 || got.Created != got.Count || len(got.Gone) != got.Count ||
				got.Nlink != 0 || got.Dead != 7 || got.Locks != "flock EAGAIN fcntl EAGAIN" {
				t.Errorf("not what the program should find: %+v", got)
			}
		},
	})
}
