package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// chunk is how much of a file one worker digests at a time. It is part of the
// manifest's format.
const chunk = 16 << 20

// digests takes the digests of files in a directory, by as many workers as there
// are processors.
func digests(ctx context.Context, dir string, names []string) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(runtime.GOMAXPROCS(0))
	out := make([]File, len(names))
	sums := make([][][sha256.Size]byte, len(names))
	for i, name := range names {
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, wait(eg, err)
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return nil, wait(eg, err)
		}
		out[i] = File{Name: name, Bytes: fi.Size()}
		sums[i] = make([][sha256.Size]byte, max(1, (fi.Size()+chunk-1)/chunk))
		for n := range sums[i] {
			eg.Go(func() error { return sum(ctx, f, int64(n), &sums[i][n]) })
		}
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].SHA256 = join(sums[i])
	}
	return out, nil
}

// wait lets the workers end before their files are closed.
func wait(eg *errgroup.Group, err error) error {
	_ = eg.Wait() // err came first
	return err
}

func sum(ctx context.Context, f *os.File, n int64, into *[sha256.Size]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, n*chunk, chunk)); err != nil {
		return err
	}
	h.Sum(into[:0])
	return nil
}

func join(sums [][sha256.Size]byte) string {
	if len(sums) == 1 {
		return hex.EncodeToString(sums[0][:])
	}
	h := sha256.New()
	for _, s := range sums {
		h.Write(s[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}
