package obstacle

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnable means that this kernel does not let the obstacle be made.
var ErrUnable = errors.New("this kernel does not allow it")

const (
	arg0    = "ctctl-obstacle"
	rootEnv = "CTCTL_OBSTACLE_ROOT"
	program = "/obstacle"
	answer  = "ready"
	readyIn = 15 * time.Second
)

// Options say how a tree is made; the zero value will do.
type Options struct {
	// Program is the program to run, which calls Main; "" is this one.
	Program string
	// Cgroup is an open directory of a cgroup2 hierarchy for the tree to be born
	// in; nil is where the caller is.
	Cgroup *os.File
}

// Tree is a first process in namespaces of its own (pid, mount, network, IPC and
// UTS) with a root of its own, and a second one that holds the obstacle.
type Tree struct {
	Init   int    // as the caller sees it
	Holder int    // the process that holds the obstacle, as the caller sees it
	Root   string // the root directory, outside
	cmd    *exec.Cmd
	cgroup *os.File
	held   []*os.File
	joined []*exec.Cmd
}

// Start makes a tree with the obstacle of a name in an empty directory, which is
// the caller's to remove. The error is ErrUnable when it can't be made here.
func Start(ctx context.Context, root, name string, o Options) (t *Tree, err error) {
	k, ok := kinds[name]
	if !ok {
		return nil, fmt.Errorf("no obstacle is named %q", name)
	}
	dynamic, err := place(root, o.Program)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(root, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(root, program))
	cmd.WaitDelay = time.Second
	cmd.Args = []string{arg0, "enter", name, strconv.FormatBool(dynamic)}
	cmd.Env = []string{rootEnv + "=" + root, "GOMAXPROCS=2", "GOTRACEBACK=single"}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = log, log, log
	t = &Tree{Root: root, cmd: cmd, cgroup: o.Cgroup}
	if k.give != nil {
		f, err := k.give(t)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
	}
	if o.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(o.Cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the tree: %w", err)
	}
	t.Init = cmd.Process.Pid
	err = t.await(ctx)
	if err == nil && k.join != nil {
		err = k.join(t)
	}
	if err != nil {
		return nil, errors.Join(err, t.End())
	}
	return t, nil
}

// End kills the tree.
func (t *Tree) End() error {
	for _, f := range t.held {
		f.Close()
	}
	for _, c := range t.joined {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
	}
	err := t.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	_ = t.cmd.Wait() // killed
	return err
}

// await waits until the obstacle is there.
func (t *Tree) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyIn)
	defer cancel()
	for {
		b, err := os.ReadFile(filepath.Join(t.Root, answer))
		switch text := strings.TrimSpace(string(b)); {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return err
		case text == "ok":
			t.Holder, err = childOf(t.Init)
			return err
		case text != "":
			return fmt.Errorf("%w: %s", ErrUnable, text)
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(t.Root, "log")) // for the message only
			return fmt.Errorf("wait for the obstacle: %w: %s", ctx.Err(), log)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// childOf returns the first child of a process.
func childOf(pid int) (int, error) {
	children, err := childrenOf(pid)
	if err == nil && len(children) == 0 {
		err = fmt.Errorf("process %d has no child", pid)
	}
	if err != nil {
		return 0, err
	}
	return children[0], nil
}

func childrenOf(pid int) (children []int, err error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range bytes.Fields(b) {
			child, err := strconv.Atoi(string(word))
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
	}
	return children, nil
}

// Members lists all processes of the tree, and what has joined it.
func (t *Tree) Members() ([]int, error) {
	list := []int{t.Init}
	for _, c := range t.joined {
		if c.ProcessState == nil {
			list = append(list, c.Process.Pid)
		}
	}
	for i := 0; i < len(list); i++ {
		children, err := childrenOf(list[i])
		if err != nil {
			return nil, err
		}
		list = append(list, children...)
	}
	return list, nil
}

// libraries are bound into the root of a program that is not static.
var libraries = []string{"usr", "lib", "lib64"}

// place puts the program and mount points into the root.
func place(root, from string) (dynamic bool, err error) {
	if from == "" {
		from = "/proc/self/exe"
	}
	for _, dir := range append([]string{"proc", "dev", "mnt", "tmp"}, libraries...) {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return false, err
		}
	}
	src, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer src.Close()
	dst, err := os.OpenFile(filepath.Join(root, program), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		return false, err
	}
	f, err := elf.Open(filepath.Join(root, program))
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		dynamic = dynamic || p.Type == elf.PT_INTERP
	}
	return dynamic, nil
}
