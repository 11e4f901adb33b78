package dir

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestContentIsCopiedWhateverTheFileSystemOffers(t *testing.T) {
	ways := map[string]copier{
		"sharing, where it works": {},
		"in the kernel":           {noClone: true},
		"by reading and writing":  {noClone: true, noRange: true},
	}
	for name, c := range ways {
		t.Run(name, func(t *testing.T) {
			c.ctx = t.Context()
			in, out := create(t, "in"), create(t, "out")
			const size, at = 64 << 20, 20<<20 + 5
			data := bytes.Repeat([]byte("content "), 400_000)
			for _, where := range []int64{0, at} {
				if _, err := in.WriteAt(data, where); err != nil {
					t.Fatal(err)
				}
			}
			if err := in.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if err := c.content(in, out, size); err != nil {
				t.Fatal(err)
			}
			want, got := read(t, in), read(t, out)
			if !bytes.Equal(want, got) {
				t.Errorf("the copy of %d bytes has %d, or other ones", len(want), len(got))
			}
			var st unix.Stat_t
			if err := unix.Fstat(int(out.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if st.Blocks*512 > size/2 {
				t.Errorf("the holes are gone: %d bytes of blocks", st.Blocks*512)
			}
		})
	}
}

func TestAFileThatBecomesShorterMeanwhileIsCopiedAsFarAsItGoes(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		c := copier{ctx: t.Context(), noClone: true, noRange: noRange}
		in, out := create(t, "in"), create(t, "out")
		if _, err := in.WriteString("short"); err != nil {
			t.Fatal(err)
		}
		if err := c.content(in, out, 1<<20); err != nil {
			t.Fatal(err)
		}
		if got := read(t, out); len(got) != 1<<20 || !bytes.HasPrefix(got, []byte("short\x00")) {
			t.Errorf("got %d bytes beginning with %.10q", len(got), got)
		}
	}
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func read(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}
