package undo_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ctctl/ctctl/internal/undo"
)

func record(to *[]string, name string, err error) func(context.Context) error {
	return func(context.Context) error {
		*to = append(*to, name)
		return err
	}
}

func TestUnwindRunsEveryStepInReverseThoughSomeFail(t *testing.T) {
	first, third := errors.New("first"), errors.New("third")
	var ran []string
	var s undo.Stack
	s.Push("volume", record(&ran, "volume", first))
	s.Push("limits", record(&ran, "limits", nil))
	s.Push("network", record(&ran, "network", third))
	err := s.Unwind(t.Context())
	if diff := cmp.Diff([]string{"network", "limits", "volume"}, ran); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if !errors.Is(err, first) || !errors.Is(err, third) {
		t.Errorf("both errors must be found in %v", err)
	}
	if want := "undo network: third\nundo volume: first"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestUnwindEmptiesTheStack(t *testing.T) {
	var ran []string
	var s undo.Stack
	s.Push("a", record(&ran, "a", nil))
	for range 2 {
		if err := s.Unwind(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(ran) != 1 {
		t.Errorf("the step ran %d times", len(ran))
	}
}

func TestUnwindIgnoresThatTheContextWasCancelledButKeepsItsValues(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "v"))
	cancel()
	var s undo.Stack
	var value any
	s.Push("a", func(ctx context.Context) error {
		value = ctx.Value(key{})
		return ctx.Err()
	})
	if err := s.Unwind(ctx); err != nil {
		t.Error(err)
	}
	if value != "v" {
		t.Errorf("value %v", value)
	}
}

func TestDropForgetsTheSteps(t *testing.T) {
	var ran []string
	var s undo.Stack
	s.Push("a", record(&ran, "a", nil))
	s.Drop()
	if err := s.Unwind(t.Context()); err != nil || len(ran) != 0 {
		t.Errorf("ran %v, error %v", ran, err)
	}
}

func TestAStepMayPushAnother(t *testing.T) {
	var ran []string
	var s undo.Stack
	s.Push("a", func(context.Context) error {
		s.Push("b", record(&ran, "b", nil))
		return nil
	})
	if err := s.Unwind(t.Context()); err != nil || len(ran) != 1 {
		t.Errorf("ran %v, error %v", ran, err)
	}
}
