package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"
)

// logger writes what the library has to say: with --verbose everything, with the
// time; else warnings, as sentences.
func logger(c *cli.Context, w io.Writer) *slog.Logger {
	switch {
	case c.Bool("verbose"):
		return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
	case c.Bool("quiet"):
		return slog.New(sentences{w: w, least: slog.LevelError})
	}
	return slog.New(sentences{w: w, least: slog.LevelWarn})
}

// sentences is a handler for people: "ctctl: warning: text (key value, …)".
type sentences struct {
	w     io.Writer
	least slog.Level
	with  string
}

func (s sentences) Enabled(_ context.Context, l slog.Level) bool { return l >= s.least }

func (s sentences) Handle(_ context.Context, r slog.Record) error {
	with := s.with
	r.Attrs(func(a slog.Attr) bool {
		with += attrText(a)
		return true
	})
	kind := "warning"
	if r.Level >= slog.LevelError {
		kind = "error"
	}
	line := "ctctl: " + kind + ": " + r.Message
	if with != "" {
		line += " (" + strings.TrimPrefix(with, ", ") + ")"
	}
	_, err := fmt.Fprintln(s.w, printable(line))
	return err
}

// attrText leaves out figures that are nothing, and what the user typed.
func attrText(a slog.Attr) string {
	if a.Key == "op" {
		return ""
	}
	if v := a.Value.String(); v != "" && v != "0" && v != "<nil>" {
		return ", " + strings.ReplaceAll(a.Key, "_", " ") + " " + v
	}
	return ""
}

func (s sentences) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		s.with += attrText(a)
	}
	return s
}

// WithGroup: nothing here logs in groups.
func (s sentences) WithGroup(string) slog.Handler { return s }
