package testutil

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
)

// settle is how long a difference may take to go away: the kernel removes
// links, mounts and cgroups a moment after their last user.
var settle = 3 * time.Second

// Main runs the tests and exits, with 1 also when the tests passed but left
// something: open descriptors, children, files and mounts below the temporary
// directory, loop devices on files there, ctctl's links, named network
// namespaces, nft tables and cgroups.
//
// Links, tables, namespaces and cgroups belong to the whole machine, where
// tests of other packages make theirs at the same time. So while another test
// process of this kind runs, a new one of those is only mentioned; run with
// go test -p 1, none escapes.
//
// What several tests share is ended by the last functions, which are called
// after the tests and before looking; their errors make the exit code 1 too.
func Main(m *testing.M, last ...func() error) {
	os.Exit(run(m.Run, last...))
}

func run(tests func() int, last ...func() error) int {
	leave, err := enterBase()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testutil:", err)
		return 1
	}
	before, err := takeInventory()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testutil:", err)
		return 1
	}
	code := tests()
	for _, f := range last {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, "testutil:", err)
			code = max(code, 1)
		}
	}
	left, others, err := leftOver(before)
	if err == nil {
		err = report(left, others)
	}
	if err = errors.Join(err, leave()); err != nil {
		fmt.Fprintln(os.Stderr, "testutil:", err)
		code = max(code, 1)
	}
	return code
}

// enterBase makes a temporary directory that is this process's own, so that
// what lies or is mounted there is surely ours. Its lock tells other test
// processes that we run.
func enterBase() (leave func() error, err error) {
	dir, err := os.MkdirTemp(diskTemp, "ctctl-test-*")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	lock, err := statefile.WaitLock(ctx, dir+".lock", "test") // others may just look
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	if err := errors.Join(os.Chmod(dir, 0o711), os.Setenv("TMPDIR", dir)); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	base = dir
	return func() error {
		return errors.Join(statefile.RemoveTree(dir), os.Remove(dir+".lock"), lock.Unlock())
	}, nil
}

// leftOver returns what is there now and was not before, and whether others
// ran when it looked.
func leftOver(before inventory) (left inventory, others bool, err error) {
	for end := time.Now().Add(settle); ; time.Sleep(50 * time.Millisecond) {
		// Others first: one that ends in between has still its things then.
		if others, err = othersRun(); err != nil {
			return nil, false, err
		}
		now, err := takeInventory()
		if err != nil {
			return nil, false, err
		}
		left = now.without(before)
		if len(left) == 0 || time.Now().After(end) {
			return left, others, nil
		}
	}
}

func report(left inventory, others bool) error {
	var errs []error
	for _, i := range left {
		if i.shared && others {
			fmt.Fprintf(os.Stderr, "testutil: new, ours or of other tests that run now: %s\n", i.name)
			continue
		}
		errs = append(errs, fmt.Errorf("the tests left: %s", i.name))
	}
	return errors.Join(errs...)
}

// othersRun reports whether another process is between enterBase and leave.
func othersRun() (bool, error) {
	locks, err := filepath.Glob(filepath.Join(diskTemp, "ctctl-test-*.lock"))
	if err != nil {
		return false, err
	}
	others := false
	for _, path := range locks {
		if path == base+".lock" {
			continue
		}
		switch l, err := statefile.TryLock(path, "look"); {
		case err == nil: // of a process that was killed
			if err := errors.Join(os.Remove(path), l.Unlock()); err != nil {
				return false, err
			}
		case errors.Is(err, statefile.ErrBusy):
			others = true
		default:
			return false, err
		}
	}
	return others, nil
}
