package storage_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ctctl/ctctl/storage"
)

func TestNamesAreChecked(t *testing.T) {
	for _, good := range []string{"a", "0", "web-1", "template-x.y", "a.tmp.x", "tmp", "a..b", strings.Repeat("x", 101)} {
		if err := storage.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "..", "-a", ".a", "A", "a/b", "a b", "a\x00", "a\n", "é", "x.tmp", strings.Repeat("x", 102), strings.Repeat("x/", 10000)} {
		err := storage.CheckName(bad)
		if !errors.Is(err, storage.ErrName) {
			t.Errorf("%.20q is accepted", bad)
		} else if len(err.Error()) > 400 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
}

func TestAnOperationMustLeaveTheWatermarkFree(t *testing.T) {
	const gib = 1 << 30
	cases := []struct {
		name string
		c    storage.Capacity
		need int64
		ok   bool
	}{
		{"fits", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: 5 * gib}, 4 * gib, true},
		{"fits exactly", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: 5 * gib}, 5*gib - gib/2, true},
		{"a byte too much", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: 5 * gib}, 5*gib - gib/2 + 1, false},
		{"nothing needed but below the watermark", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: gib / 4}, 0, false},
		{"nothing needed, at the watermark", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: gib / 2}, 0, true},
		{"a large store keeps 1 GiB", storage.Capacity{TotalBytes: 1000 * gib, FreeBytes: 2 * gib}, gib, true},
		{"nothing known", storage.Capacity{}, 1, false},
		{"a need that overflows", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: 5 * gib}, 1<<63 - 1, false},
		{"a negative need is none", storage.Capacity{TotalBytes: 10 * gib, FreeBytes: 5 * gib}, -1, true},
	}
	for _, c := range cases {
		err := storage.CheckRoom(c.c, c.need)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, storage.ErrNoSpace) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	err := storage.CheckRoom(storage.Capacity{TotalBytes: 10 * gib, FreeBytes: gib}, 3*gib)
	for _, figure := range []string{"3GiB", "1GiB", "10GiB", "512MiB"} {
		if !strings.Contains(err.Error(), figure) {
			t.Errorf("%q lacks %s", err, figure)
		}
	}
}

func TestErrnosGetTheirSentinelAndStay(t *testing.T) {
	cases := map[error]error{
		unix.EEXIST: storage.ErrExists, unix.ENOENT: storage.ErrNotFound, unix.EDQUOT: storage.ErrNoSpace, unix.ENOSPC: storage.ErrNoSpace,
		unix.EBUSY: storage.ErrInUse, unix.ENOTTY: storage.ErrUnsupported, unix.EOPNOTSUPP: storage.ErrUnsupported,
	}
	for errno, want := range cases {
		err := storage.FromErrno(fmt.Errorf("do: %w", errno))
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
	if storage.FromErrno(nil) != nil {
		t.Error("no error becomes one")
	}
	for _, same := range []error{unix.EIO, fmt.Errorf("%w: %w", storage.ErrName, unix.ENOENT)} {
		if got := storage.FromErrno(same); got.Error() != same.Error() || errors.Is(got, storage.ErrNotFound) != errors.Is(same, storage.ErrNotFound) {
			t.Errorf("%v becomes %v", same, got)
		}
	}
}

func TestOperationsAreNamedOnce(t *testing.T) {
	inner := func() (err error) {
		defer storage.WrapOp("create volume", "a", &err)
		return storage.ErrExists
	}
	err := func() (err error) {
		defer storage.WrapOp("outer", "b", &err)
		return inner()
	}()
	if got, want := err.Error(), `create volume "a": volume already exists`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	err = nil
	storage.WrapOp("create volume", "a", &err)
	if err != nil {
		t.Error("no error becomes one")
	}
}
