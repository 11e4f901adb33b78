// Package undo keeps the compensating steps of an operation: every step that
// made something pushes how to take it away, a failing operation unwinds.
//
//	var stack undo.Stack
//	defer func() {
//		if err != nil {
//			err = errors.Join(err, stack.Unwind(ctx))
//		}
//	}()
//
// Steps must be idempotent and treat what is absent as done, because the
// thing may have gone by itself meanwhile.
package undo

import (
	"context"
	"errors"
	"fmt"
)

// Stack holds the steps. The zero value is empty and ready. It is for one
// goroutine.
type Stack struct {
	steps []step
}

type step struct {
	name string
	undo func(context.Context) error
}

// Push adds a step; name completes the sentence "undo NAME: …" of its error.
func (s *Stack) Push(name string, f func(context.Context) error) {
	s.steps = append(s.steps, step{name, f})
}

// Unwind runs the steps, the last pushed first, each once and all of them even
// when some fail, and leaves the stack empty. The steps see the values of ctx
// but not its end: an operation that fails because it was cancelled must clean
// up all the same. The errors come joined.
func (s *Stack) Unwind(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for len(s.steps) > 0 {
		last := s.steps[len(s.steps)-1]
		s.steps = s.steps[:len(s.steps)-1]
		if err := last.undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", last.name, err))
		}
	}
	return errors.Join(errs...)
}

// Drop forgets all steps: the operation has succeeded.
func (s *Stack) Drop() { s.steps = nil }
