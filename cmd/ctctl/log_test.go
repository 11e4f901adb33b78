package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
)

func TestWarningsAreSentences(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(sentences{w: &out, least: slog.LevelWarn}).With("container", "web1")
	log.Info("not told")
	log.Warn("something is odd", "devices", 8, "sockets", 0, "bad_thing", "a\x1b[2J")
	log.Error("it broke", "err", errors.New("why"))
	want := "ctctl: warning: something is odd (container web1, devices 8, bad thing a\uFFFD[2J)\n" +
		"ctctl: error: it broke (container web1, err why)\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	quiet := sentences{least: slog.LevelError}
	if quiet.Enabled(context.Background(), slog.LevelWarn) {
		t.Error("a warning is told with --quiet")
	}
}
