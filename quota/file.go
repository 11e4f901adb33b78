package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unlimitedFrom is the least value that means "no limit" in a v1 memory file:
// PAGE_COUNTER_MAX in bytes, that is the largest int64 rounded down to pages,
// which may have up to 64 KiB.
const unlimitedFrom = 1<<63 - 1 - 64<<10

// vanished tells that a cgroup or a process went away while it was looked at:
// opening gives ENOENT, reading an open file of a removed cgroup ENODEV, of a
// dead process ESRCH.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH)
}

func readText(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

func readWords(path string) ([]string, error) {
	s, err := readText(path)
	return strings.Fields(s), err
}

// writeText writes in one write(2), as cgroup files demand. It never creates a
// file; O_TRUNC means nothing to cgroupfs and makes plain files work alike.
func writeText(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// readInt reads one number; "max" is 0, which means no limit.
func readInt(path string) (int64, error) {
	s, err := readText(path)
	if err != nil || s == "max" {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

// readKeys reads a flat-keyed file: one "key number" per line.
func readKeys(path string) (map[string]int64, error) {
	s, err := readText(path)
	if err != nil {
		return nil, err
	}
	keys := map[string]int64{}
	for line := range strings.Lines(s) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			continue // lines of other shapes exist; the keys wanted are numbers
		}
		keys[k] = n
	}
	return keys, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
