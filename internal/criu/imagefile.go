package criu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Numbers that image files start with (criu/include/magic.h). Files other
// than the inventory start with one of the two common ones, then their own.
const (
	magicCommon  = 0x54564319
	magicService = 0x55105940

	magicStats  = 0x57093306
	magicPstree = 0x50273030
	magicCore   = 0x55053847
	magicUserns = 0x55474906
)

// entryLimit bounds one entry: the largest real ones, of tasks with thousands
// of threads, stay well below.
const entryLimit = 16 << 20

// readImage returns the entries of an image file that is a plain sequence of
// messages. It trusts no length in it.
func readImage(path string, magic uint32) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := decodeImage(f, magic)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return entries, nil
}

func decodeImage(r io.Reader, magic uint32) ([][]byte, error) {
	br := bufio.NewReader(r)
	word := func() (uint32, error) {
		var b [4]byte
		_, err := io.ReadFull(br, b[:])
		return binary.LittleEndian.Uint32(b[:]), err
	}
	m, err := word()
	if err == nil && (m == magicCommon || m == magicService) {
		m, err = word()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no magic number", ErrBadImage)
	}
	if m != magic {
		return nil, fmt.Errorf("%w: magic number %#x, not %#x", ErrBadImage, m, magic)
	}
	var entries [][]byte
	for {
		size, err := word()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: cut off", ErrBadImage)
		}
		if size > entryLimit {
			return nil, fmt.Errorf("%w: entry of %d bytes", ErrBadImage, size)
		}
		b, err := io.ReadAll(io.LimitReader(br, int64(size)))
		if err != nil {
			return nil, err
		}
		if len(b) != int(size) {
			return nil, fmt.Errorf("%w: cut off", ErrBadImage)
		}
		entries = append(entries, b)
	}
}

// encodeImage makes an image file of messages.
func encodeImage(magic uint32, entries ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, magicCommon)
	b = binary.LittleEndian.AppendUint32(b, magic)
	for _, entry := range entries {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(entry)))
		b = append(b, entry...)
	}
	return b
}
