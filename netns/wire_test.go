package netns

import (
	"errors"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/internal/testutil"
)

func TestAnInterruptedListingCountsForNothing(t *testing.T) {
	rounds := [][]string{{"gone", "stays"}, {"stays", "new"}}
	var got []string
	err := whole(func(each func([]byte)) error {
		items := rounds[0]
		rounds = rounds[1:]
		for _, item := range items {
			each([]byte(item))
		}
		if len(rounds) > 0 {
			return errInterrupted
		}
		return nil
	}, func(b []byte) { got = append(got, string(b)) })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"stays", "new"}, got); diff != "" {
		t.Error(diff)
	}
	always := func(func([]byte)) error { return errInterrupted }
	if err := whole(always, nil); !errors.Is(err, errInterrupted) {
		t.Errorf("got %v, want the tries to end with %v", err, errInterrupted)
	}
}

// forge has another socket of the namespace send what looks like the kernel's
// word that the first request was carried out.
func forge(fd int) (err error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	hostile, err := openSocket()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hostile.close()) }()
	msg := make([]byte, unix.NLMSG_HDRLEN+unix.SizeofNlMsgerr)
	native.PutUint32(msg[0:], uint32(len(msg)))
	native.PutUint16(msg[4:], unix.NLMSG_ERROR)
	native.PutUint32(msg[8:], 1)
	return unix.Sendto(hostile.fd, msg, 0, name)
}

func TestForgedAnswersAreNotHeard(t *testing.T) {
	testutil.Require(t, testutil.Root)
	absent := linkBody(unix.AF_UNSPEC, 0, 0, 0).str(unix.IFLA_IFNAME, "absent")
	for name, ask := range map[string]func() error{
		"socket": func() (err error) {
			s, err := openSocket()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
			if err := forge(s.fd); err != nil {
				return err
			}
			return s.ask(unix.RTM_GETLINK, 0, absent, nil)
		},
		"talk": func() (err error) {
			s, err := openTalk(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			if err := forge(s.fd); err != nil {
				return err
			}
			return s.do(unix.RTM_DELLINK, 0, absent)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := inNew(ask); !errors.Is(err, unix.ENODEV) {
				t.Errorf("got %v, want the kernel's answer: %v", err, unix.ENODEV)
			}
		})
	}
}

func TestThreadsInOtherNamespacesGoOn(t *testing.T) {
	testutil.Require(t, testutil.Root)
	var thread int
	must(t, inNew(func() error {
		thread = unix.Gettid()
		return nil
	}))
	for range 100 { // what ends a thread does so after its goroutine
		runtime.Gosched()
		if err := unix.Tgkill(unix.Getpid(), thread, 0); err != nil {
			t.Fatalf("thread %d: %v", thread, err)
		}
	}
}

// The first thread's namespace is what others see of the process.
func TestTheFirstThreadNeverLeaves(t *testing.T) {
	testutil.Require(t, testutil.Root)
	const many = 64 // more than there are idle threads
	gate, inside := make(chan struct{}), make(chan int, many)
	done := make(chan error, many)
	for range many {
		go func() {
			done <- inNew(func() error {
				inside <- unix.Gettid()
				<-gate
				return nil
			})
		}()
	}
	for range many {
		if <-inside == unix.Getpid() {
			t.Error("the first thread is in another namespace")
		}
	}
	close(gate)
	for range many {
		must(t, <-done)
	}
}

func TestAnAnswerThatNobodyWaitedForIsNotThatOfTheNextRequest(t *testing.T) {
	requireHost(t)
	k, err := openTalk(unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(func() { must(t, k.close()) })
	must(t, k.send(k.pack(nil, nlMessage{unix.RTM_GETLINK, 0, linkBody(unix.AF_UNSPEC, 1, 0, 0)})))
	got, err := k.dump(unix.RTM_GETRULE, append([]byte{unix.AF_INET}, make([]byte, sizeofRule-1)...))
	must(t, err)
	if len(got) == 0 {
		t.Error("nothing was listed")
	}
	for _, m := range got {
		if m.kind != unix.RTM_NEWRULE {
			t.Errorf("got a message of type %d among the rules", m.kind)
		}
	}
}
