package container

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScriptsAreGivenToTheirInterpreter(t *testing.T) {
	tests := map[string]struct{ script, want string }{
		"none":              {"echo hi\n", "/bin/sh -c READ name"},
		"sh":                {"#!/bin/sh\n", "/bin/sh -c READ name"},
		"bash with options": {"#! /bin/bash -eu\n", "/bin/bash -eu -c READ name"},
		"env bash":          {"#!/usr/bin/env bash\n", "bash -c READ name"},
		"env -S":            {"#!/usr/bin/env -S python3 -u\n", "python3 -u -"},
		"python":            {"#!/usr/bin/python3\nprint(1)\n", "/usr/bin/python3 -"},
		"no line end":       {"#!/bin/dash", "/bin/dash -c READ name"},
		"empty":             {"", "/bin/sh -c READ name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := interpreter([]byte(tt.script), "name")
			if err != nil {
				t.Fatal(err)
			}
			line := strings.Join(got, " ")
			if diff := cmp.Diff(tt.want, strings.ReplaceAll(line, readFirst, "READ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAProgramIsNoScript(t *testing.T) {
	for _, text := range []string{"\x7fELF\x02\x00", "#!/usr/bin/env -S\n"} {
		if _, err := interpreter([]byte(text), "x"); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestCommandsInAScriptDoNotReadTheScript(t *testing.T) {
	script := "echo \"$0 $*\"\ncat\necho after\nexit 9\n"
	args, err := interpreter([]byte(script), "name")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), args[0], append(args[1:], "one", "two words")...)
	cmd.Stdin = strings.NewReader(script)
	var out bytes.Buffer
	cmd.Stdout = &out
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 9 {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff("name one two words\nafter\n", out.String()); diff != "" {
		t.Error(diff)
	}
}
