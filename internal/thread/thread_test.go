package thread

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheFirstThreadIsNotSpent(t *testing.T) {
	for range 100 {
		tid := 0
		if err := Spend(func() error { tid = unix.Gettid(); return nil }); err != nil {
			t.Fatal(err)
		}
		if tid == unix.Getpid() {
			t.Fatal("it was the first one")
		}
		runtime.Gosched()
	}
	wrong := errors.New("wrong")
	if err := Spend(func() error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("got %v", err)
	}
}
