package template

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// zstdWindowBytes is the largest window that zstd(1) accepts without --long.
const zstdWindowBytes = 128 << 20

var compressions = []struct {
	magic string // the first bytes of a file
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{"\x1f\x8b", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{"\xfd7zXZ\x00", openXZ},
	{"\x28\xb5\x2f\xfd", openZstd},
	{"BZh", func(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }},
}

func openXZ(r io.Reader) (io.ReadCloser, error) {
	x, err := xz.NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(zstdWindowBytes), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// meter counts what is read. Decompressors read ahead in goroutines of their own.
type meter struct {
	r io.Reader
	n atomic.Int64
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n.Add(int64(n))
	return n, err
}

// stream is the decompressed content of a file, within the limits. Reading ends
// with ctx's error when ctx does.
type stream struct {
	ctx    context.Context // an io.Reader has no other way to get it
	in     meter
	out    meter
	inner  io.Closer
	limits Limits
}

// openStream looks at the first bytes to tell how file is compressed. The caller
// closes the stream, and then file.
func openStream(ctx context.Context, file io.Reader, l Limits) (*stream, error) {
	s := &stream{ctx: ctx, limits: l.withDefaults()}
	s.in.r = file
	buffered := bufio.NewReaderSize(&s.in, 1<<20)
	head, err := buffered.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	s.out.r, s.inner = buffered, io.NopCloser(nil)
	for _, c := range compressions {
		if !bytes.HasPrefix(head, []byte(c.magic)) {
			continue
		}
		r, err := c.open(buffered)
		if err != nil {
			return nil, archiveError(fmt.Errorf("decompress: %w", err))
		}
		s.out.r, s.inner = r, r
		break
	}
	return s, nil
}

func (s *stream) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.out.Read(b)
	out := s.out.n.Load()
	if out > s.limits.Bytes {
		return 0, fmt.Errorf("%w: more than %d bytes of data", ErrLimit, s.limits.Bytes)
	}
	if out > ratioFromBytes && out/s.limits.Ratio > s.in.n.Load() {
		return 0, fmt.Errorf("%w: expands more than %d times", ErrLimit, s.limits.Ratio)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("decompress: %w", err)
	}
	return n, err
}

func (s *stream) Close() error { return s.inner.Close() }

// archiveError makes err an ErrArchive, unless it is about the disk that the
// archive lies on, or about the caller who gave up.
func archiveError(err error) error {
	var disk *os.PathError
	switch {
	case err == nil, errors.Is(err, ErrArchive), errors.As(err, &disk),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("%w: %w", ErrArchive, err)
}
