package netns

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// step is one change of the kernel's state, named for its error.
type step struct {
	what string
	do   func() error
}

// action is a step that can be taken back.
type action struct {
	step
	// undo takes back what do has done; nil when there is nothing to.
	undo func() error
}

// run does the steps up to the first that fails. It does not look at whether ctx
// has ended: half a connection is of no use, and each step takes well below a
// millisecond.
func run(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := s.try(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runOrUndo does what run does, and after a failure undoes what was done before,
// from the last to the first.
func runOrUndo(ctx context.Context, actions []action) error {
	for n, a := range actions {
		if err := a.try(ctx); err != nil {
			return errors.Join(err, unwind(actions[:n]))
		}
	}
	return nil
}

func unwind(actions []action) error {
	var errs []error
	for _, a := range slices.Backward(actions) {
		if a.undo == nil {
			continue
		}
		if err := a.undo(); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", a.what, err))
		}
	}
	return errors.Join(errs...)
}

// runAll does every action, whatever became of those before, and undoes none.
func runAll(ctx context.Context, actions []action) error {
	var errs []error
	for _, a := range actions {
		errs = append(errs, a.try(ctx))
	}
	return errors.Join(errs...)
}

func (s step) try(ctx context.Context) error {
	if fault, ok := ctx.Value(faultKey{}).(func(string) error); ok {
		if err := fault(s.what); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	if err := s.do(); err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	return nil
}

// callFaultKey is the same for every message to the kernel about links, addresses
// and routes: a func() error.
type callFaultKey struct{}

// faultKey is the context key under which a test puts a func(string) error that
// is asked before every step.
type faultKey struct{}
