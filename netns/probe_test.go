package netns

import (
	"errors"
	"os"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
)

func TestTryingLeavesTheNamespaceAlone(t *testing.T) {
	testutil.Require(t, testutil.Root)
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // more often than there are idle threads
		if err := errors.Join(TryVeth(), TryFilter()); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		done := make(chan string)
		go func() {
			now, err := os.Readlink("/proc/thread-self/ns/net")
			if err != nil {
				now = err.Error()
			}
			done <- now
		}()
		if now := <-done; now != before {
			t.Fatalf("a goroutine runs in %s, want %s", now, before)
		}
	}
}

func TestAScratchNamespaceIsANewOne(t *testing.T) {
	testutil.Require(t, testutil.Root)
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("told so")
	err = inNew(func() error {
		theirs, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil || theirs == ours {
			t.Errorf("in %q, want another one than %q; error %v", theirs, ours, err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want what the function returned", err)
	}
}
