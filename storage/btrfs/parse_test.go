package btrfs

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountinfoLinesAreRead(t *testing.T) {
	read := func(text string) ([]mount, error) {
		file := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return readMounts(file)
	}
	got, err := read(`82 27 0:40 / /var/pool rw,nodev - btrfs /dev/loop0 rw,subvol=/
36 35 98:0 /r /a\040b\134c rw shared:1 master:2 - ext4 /dev/x rw
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []mount{
		{device: "0:40", point: "/var/pool", kind: "btrfs", source: "/dev/loop0", id: 82, parent: 27},
		{device: "98:0", point: `/a b\c`, kind: "ext4", source: "/dev/x", id: 36, parent: 35, shared: "1", groups: []string{"1", "2"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mount{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := read("36 35 98:0 / /a rw\n"); err == nil {
		t.Errorf("half a line is taken for %+v", got)
	}
}

func TestSearchAnswersAreReadAndCutOnesRefused(t *testing.T) {
	item := func(object, offset uint64, kind uint32, body string) []byte {
		b := make([]byte, 32)
		binary.NativeEndian.PutUint64(b[8:], object)
		binary.NativeEndian.PutUint64(b[16:], offset)
		binary.NativeEndian.PutUint32(b[24:], kind)
		binary.NativeEndian.PutUint32(b[28:], uint32(len(body)))
		return append(b, body...)
	}
	whole := append(item(1, 2, 3, "abc"), item(4, 5, 6, "")...)
	var got []string
	last, err := eachItem(whole, 2, func(_ itemKey, body []byte) { got = append(got, string(body)) })
	if want := (itemKey{object: 4, kind: 6, offset: 5}); err != nil || last != want || !cmp.Equal(got, []string{"abc", ""}) {
		t.Errorf("got %q, last %v, error %v", got, last, err)
	}
	for n := range len(whole) {
		if _, err := eachItem(whole[:n], 2, func(itemKey, []byte) {}); err == nil {
			t.Errorf("an answer of %d bytes instead of %d is accepted", n, len(whole))
		}
	}
	if field([]byte{1, 2, 3}, 0) != 0 {
		t.Error("a short item has a field")
	}
}

func TestKeysAreCountedOn(t *testing.T) {
	cases := []struct {
		from, want itemKey
		more       bool
	}{
		{itemKey{1, 2, 3}, itemKey{1, 2, 4}, true},
		{itemKey{1, 2, math.MaxUint64}, itemKey{1, 3, 0}, true},
		{itemKey{1, math.MaxUint8, math.MaxUint64}, itemKey{2, 0, 0}, true},
		{itemKey{math.MaxUint64, math.MaxUint8, math.MaxUint64}, itemKey{math.MaxUint64, math.MaxUint8, math.MaxUint64}, false},
	}
	for _, c := range cases {
		if got, more := c.from.next(); got != c.want || more != c.more {
			t.Errorf("after %v comes %v (%v), want %v (%v)", c.from, got, more, c.want, c.more)
		}
	}
}

func TestGroupNumbersOfSeveralRootsOnOneFileSystemDiffer(t *testing.T) {
	a, b, pool := &Driver{groupBase: 300 << nativeGroupBits}, &Driver{groupBase: 301 << nativeGroupBits}, &Driver{}
	for _, d := range []*Driver{a, b, pool} {
		id, err := d.groupID(7)
		if got, ours := d.groupNumber(id); err != nil || got != 7 || !ours {
			t.Errorf("group 7 becomes %d, %v (error %v)", got, ours, err)
		}
		if _, err := d.groupID(0); err == nil {
			t.Error("group 0 is accepted")
		}
		if _, err := d.groupID(1 << 48); err == nil {
			t.Error("a group of 49 bits is accepted")
		}
	}
	id, err := a.groupID(7)
	if err != nil {
		t.Fatal(err)
	}
	if _, ours := b.groupNumber(id); ours {
		t.Error("another root's group is taken for ours")
	}
	if _, err := a.groupID(1 << nativeGroupBits); err == nil {
		t.Error("a group that reaches into the root's part is accepted")
	}
}
