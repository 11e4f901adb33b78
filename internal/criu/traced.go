package criu

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// waitUntraced returns nil as soon as no thread of the tasks has a tracer,
// or an error naming some that have, after grace.
func waitUntraced(pids func() ([]int, error), grace time.Duration) error {
	end := time.Now().Add(grace)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		list, err := pids()
		if err != nil {
			return fmt.Errorf("list the tasks: %w", err)
		}
		traced, err := tracedTasks(list)
		if err != nil {
			return err
		}
		if len(traced) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %v", ErrTraced, traced)
		}
		time.Sleep(pause)
	}
}

// tracedTasks returns the threads, out of all of the given processes, that
// have a tracer. Processes that are gone have none.
func tracedTasks(pids []int) ([]int, error) {
	var traced []int
	for _, pid := range pids {
		tids, err := taskIDs(pid)
		if err != nil {
			return nil, err
		}
		for _, tid := range tids {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
			if err != nil {
				if isGone(err) {
					continue
				}
				return nil, err
			}
			if tracer(status) != 0 {
				traced = append(traced, tid)
			}
		}
	}
	return traced, nil
}

// tracer returns the TracerPid of a /proc/PID/status.
func tracer(status []byte) int {
	_, rest, ok := bytes.Cut(status, []byte("\nTracerPid:"))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil {
		return 0
	}
	return n
}

// descendants returns root and all processes below it.
func descendants(root int) ([]int, error) {
	seen := map[int]bool{root: true}
	list := []int{root}
	for i := 0; i < len(list); i++ {
		tids, err := taskIDs(list[i])
		if err != nil {
			return nil, err
		}
		for _, tid := range tids {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", list[i], tid))
			if err != nil && !isGone(err) {
				return nil, err
			}
			for _, word := range bytes.Fields(b) {
				if pid, err := strconv.Atoi(string(word)); err == nil && !seen[pid] {
					seen[pid] = true
					list = append(list, pid)
				}
			}
		}
	}
	return list, nil
}

// taskIDs returns the threads of a process; none when it is gone.
func taskIDs(pid int) ([]int, error) {
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		if isGone(err) {
			return nil, nil
		}
		return nil, err
	}
	var tids []int
	for _, entry := range entries {
		if tid, err := strconv.Atoi(entry.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, nil
}

// isGone is true for what reading a file of /proc/PID returns once the
// process has ended: ESRCH when it ended after the open.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
