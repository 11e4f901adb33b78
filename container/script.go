package container

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// ScriptOptions says how to run a script; see ExecOptions.
type ScriptOptions struct {
	Name   string // of the script, its $0
	Args   []string
	User   string
	Env    []string
	Stdout io.Writer
	Stderr io.Writer
}

// maxScriptBytes bounds a script: it is kept in a variable of the shell inside.
const maxScriptBytes = 8 << 20

// RunScript runs a script of the host inside a running container, without a
// copy of it there, and returns its exit code. The interpreter of its first line
// is used, or sh. Its standard input is empty. Errors: as Exec, ErrConfig.
func (m *Manager) RunScript(ctx context.Context, name string, script io.Reader, o ScriptOptions) (code int, err error) {
	defer wrapOp("runscript", name, &err)
	text, err := io.ReadAll(io.LimitReader(script, maxScriptBytes+1))
	if err != nil {
		return -1, err
	}
	if len(text) > maxScriptBytes {
		return -1, fmt.Errorf("%w: %s: a script of more than %d MiB", ErrConfig, o.Name, maxScriptBytes>>20)
	}
	args, err := interpreter(text, o.Name)
	if err != nil {
		return -1, err
	}
	return m.Exec(ctx, name, ExecOptions{
		Args: append(args, o.Args...), User: o.User, Env: o.Env, Stdin: bytes.NewReader(text), Stdout: o.Stdout, Stderr: o.Stderr,
	})
}

// readFirst makes a shell read the whole script before it runs it: commands in it
// would otherwise read its next lines as their input.
const readFirst = `s=$(cat) || exit 125; exec </dev/null; eval "$s"`

// interpreter is the command that runs a script which it reads from its input.
func interpreter(text []byte, name string) ([]string, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("%w: %s is not a script", ErrConfig, name)
	}
	if name == "" {
		name = "script"
	}
	line, err := bufio.NewReader(bytes.NewReader(text)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return []string{"/bin/sh", "-c", readFirst, name}, nil
	}
	if path.Base(words[0]) == "env" && len(words) > 1 {
		words = words[1:]
		if words[0] == "-S" {
			words = words[1:]
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("%w: %s: no interpreter in %q", ErrConfig, name, strings.TrimSpace(line))
		}
	}
	if isShell(words[0]) {
		return append(words, "-c", readFirst, name), nil
	}
	return append(words, "-"), nil // perl, python, ruby, … read a program given as "-"
}

func isShell(command string) bool {
	switch path.Base(command) {
	case "sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox":
		return true
	}
	return false
}
