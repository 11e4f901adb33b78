package quota

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fakeWrite does with a file of a fake host what the kernel does with the text
// that is written: it rounds, merges lines and refuses.
func fakeWrite(path, value string) error {
	value = strings.TrimSpace(value)
	name := filepath.Base(path)
	beside := func(other string) int64 {
		n, err := limitOr(filepath.Join(filepath.Dir(path), other))
		if err != nil || n == Unlimited {
			return pages(math.MaxInt64)
		}
		return n
	}
	number, err := strconv.ParseInt(value, 10, 64)
	switch name {
	case "io.max", "io.weight", "io.bfq.weight", throttleFiles[0], throttleFiles[1], throttleFiles[2], throttleFiles[3]:
		return fakeLine(path, value)
	case "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.high", "memory.min", "memory.swap.max":
		if value == "max" {
			break
		}
		if err != nil {
			return unix.EINVAL
		}
		if number == -1 {
			number = math.MaxInt64
		}
		number = pages(number)
		switch {
		case name == "memory.limit_in_bytes" && number > beside("memory.memsw.limit_in_bytes"),
			name == "memory.memsw.limit_in_bytes" && number < beside("memory.limit_in_bytes"):
			return unix.EINVAL
		case name == "memory.limit_in_bytes" && number < beside("memory.usage_in_bytes"),
			name == "memory.memsw.limit_in_bytes" && number < beside("memory.memsw.usage_in_bytes"):
			return unix.EBUSY
		case name == "memory.max" && number < beside("memory.current"): // what must never be done
			return errors.Join(writeText(filepath.Join(filepath.Dir(path), "memory.events"), "oom_kill 99"), writeText(path, value))
		}
		value = strconv.FormatInt(number, 10)
	case "cpu.shares":
		if err != nil {
			return unix.EINVAL
		}
		value = strconv.FormatInt(min(max(number, 2), 1<<18), 10)
	case "cpu.weight", "blkio.bfq.weight":
		most := map[string]int64{"cpu.weight": 10000, "blkio.bfq.weight": 1000}[name]
		if err != nil || number < 1 || number > most {
			return unix.ERANGE
		}
	case "cpu.cfs_quota_us":
		if err != nil || number != -1 && number < 1000 {
			return unix.EINVAL
		}
	case "cpuset.cpus", "cpuset.mems":
		if _, ok := parseCPUs(value); !ok {
			return unix.EINVAL
		}
		if value == "" {
			return unix.ENOSPC // there are processes
		}
	}
	return writeText(path, value)
}

// fakeLine replaces the line of the same key.
func fakeLine(path, value string) error {
	text, err := readText(path)
	if err != nil {
		return err
	}
	key, rest, ok := strings.Cut(value, " ")
	if !ok {
		return unix.EINVAL
	}
	if strings.HasPrefix(key, "998:") {
		return unix.ENODEV
	}
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool {
		return l == "" || strings.HasPrefix(l, key+" ")
	})
	if rest != "0" && rest != "rbps=max wbps=max riops=max wiops=max" {
		lines = append(lines, value)
	}
	slices.SortFunc(lines, func(a, b string) int { return -strings.Compare(a, b) }) // "default" first
	return writeText(path, strings.Join(lines, "\n"))
}
