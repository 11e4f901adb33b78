package netns

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAskingTheKernelEndsWithTheTimeForAllQuestions(t *testing.T) {
	k, err := openTalk(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	ask := func() error {
		_, err := k.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
		return err
	}
	k.until = time.Now().Add(time.Hour)
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	k.until = time.Now().Add(-time.Nanosecond)
	if err := ask(); !errors.Is(err, ErrInnerSize) {
		t.Errorf("error is %v, want ErrInnerSize", err)
	}
}
