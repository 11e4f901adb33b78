package quota

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The ranges of limits.
const (
	// MinCPUs is what the kernel's smallest quota, 1 ms in a period of 100 ms, gives.
	MinCPUs = 0.01
	// MaxCPUs is the largest CONFIG_NR_CPUS of Linux on amd64.
	MaxCPUs = 8192
	// MinMemoryBytes catches a forgotten unit ("512" for "512M"); no init runs in less.
	MinMemoryBytes = 4 << 20
	// MinSwapBytes catches a forgotten unit too.
	MinSwapBytes = 1 << 20
	// MinDiskBytes catches a forgotten unit too.
	MinDiskBytes = 1 << 20
	// MaxBytes leaves room for rounding to pages and sectors without overflow.
	MaxBytes = 1<<62 - 1
	// MaxPIDs is PID_MAX_LIMIT of 64-bit Linux: no more tasks can exist.
	MaxPIDs = 4 << 20
	// MaxWeight is the kernel's largest weight of cpu and io; the smallest is 1.
	MaxWeight = 10000
	// DefaultWeight is the weight of a group for which none is set.
	DefaultWeight = 100
	// MinIOBytes is the least bandwidth, a page per second.
	MinIOBytes = 4096
	// MaxIOPS is the kernel's largest limit of operations: UINT_MAX is none.
	MaxIOPS = 1<<32 - 2
	// MaxIODevices bounds the list of io limits.
	MaxIODevices = 64
)

// UnlimitedSwap is the SwapBytes that bounds memory alone.
const UnlimitedSwap = -1

// Pool is the Device of an IOLimit that means the disks below the container's
// own volume, whichever they are on the host where it runs.
const Pool = "pool"

// Limits are the limits of one group. The zero value is no limit at all.
type Limits struct {
	// CPUs is cpu time per time, in CPUs: 1.5 is one and a half. Resolution 0.00001.
	CPUs float64 `json:"cpus,omitempty"`
	// CPUWeight is the share of cpu time when there is not enough for all, in
	// proportion to the other groups: 1 to 10000, 0 is the default of 100.
	CPUWeight int64 `json:"cpuWeight,omitempty"`
	// CPUSet are the CPUs to run on, "0-3,6"; empty is all of the host's.
	CPUSet string `json:"cpuset,omitempty"`

	// MemoryBytes bounds memory, page cache included. The kernel rounds it down
	// to pages. At the limit it reclaims, and then kills.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// MemoryHighBytes is where the kernel begins to slow the group down and to
	// reclaim, without killing. Cgroup2 only.
	MemoryHighBytes int64 `json:"memoryHighBytes,omitempty"`
	// MemoryMinBytes is a guarantee: memory up to it is not reclaimed for others.
	// Cgroup2 only.
	MemoryMinBytes int64 `json:"memoryMinBytes,omitempty"`
	// SwapBytes is what may be swapped out beyond MemoryBytes: 0 is none,
	// UnlimitedSwap any amount. Without MemoryBytes swap is not limited.
	SwapBytes int64 `json:"swapBytes,omitempty"`

	// PIDs bounds tasks, that is processes and threads.
	PIDs int64 `json:"pids,omitempty"`

	// IOWeight is the share of a busy disk, like CPUWeight. What Notes says about
	// it depends on the host's disks.
	IOWeight int64 `json:"ioWeight,omitempty"`
	// IO bounds transfers, one entry for each device.
	IO []IOLimit `json:"io,omitempty"`

	// DiskBytes is enforced by the storage driver, not by Apply.
	DiskBytes int64 `json:"diskBytes,omitempty"`
	// DiskWarnPercent is the use of DiskBytes in percent from which on there is a
	// warning: 1 to 100, 0 is none. Not for Apply.
	DiskWarnPercent int64 `json:"diskWarnPercent,omitempty"`
}

// IOLimit bounds the transfers to and from one disk; 0 is no limit.
type IOLimit struct {
	Device    string `json:"device"`              // a path in /dev, of a disk or of a partition, which stands for its disk; or Pool
	ReadBPS   int64  `json:"readBps,omitempty"`   // bytes per second
	WriteBPS  int64  `json:"writeBps,omitempty"`  // bytes per second
	ReadIOPS  int64  `json:"readIops,omitempty"`  // operations per second
	WriteIOPS int64  `json:"writeIops,omitempty"` // operations per second
}

// unlimited tells that it bounds nothing.
func (l IOLimit) unlimited() bool { return l == IOLimit{Device: l.Device} }

// Clone returns a copy that shares nothing with l.
func (l Limits) Clone() Limits {
	l.IO = slices.Clone(l.IO)
	return l
}

// Validate returns an error that matches ErrBadLimit if a limit is out of range
// or two of them contradict each other. It does not look at the host.
func (l Limits) Validate() error {
	for _, err := range [...]error{
		checkCPUs(l.CPUs),
		checkWeight("cpu-weight", l.CPUWeight),
		checkCPUSet(l.CPUSet),
		checkBytes("memory", l.MemoryBytes, MinMemoryBytes),
		checkBytes("memory-high", l.MemoryHighBytes, MinMemoryBytes),
		checkBytes("memory-min", l.MemoryMinBytes, MinMemoryBytes),
		l.checkSwap(),
		l.checkMemoryOrder(),
		checkPIDs(l.PIDs),
		checkWeight("io-weight", l.IOWeight),
		checkIO(l.IO),
		checkBytes("disk", l.DiskBytes, MinDiskBytes),
		checkPercent("disk-warn", l.DiskWarnPercent),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkCPUs(n float64) error {
	switch {
	case n == 0:
		return nil
	case math.IsNaN(n) || n < MinCPUs || n > MaxCPUs:
		return fmt.Errorf("%w: cpus %v is not between %v and %d; 0 is no limit", ErrBadLimit, n, MinCPUs, MaxCPUs)
	}
	return nil
}

func checkWeight(what string, n int64) error {
	if n < 0 || n > MaxWeight {
		return fmt.Errorf("%w: %s %d is not between 1 and %d; 0 is the default of %d", ErrBadLimit, what, n, MaxWeight, DefaultWeight)
	}
	return nil
}

func checkCPUSet(s string) error {
	if s == "" {
		return nil
	}
	canonical, err := ParseCPUSet(s)
	if err == nil && canonical != s {
		err = fmt.Errorf("%w: cpuset %q is to be written %q", ErrBadLimit, s, canonical)
	}
	return err
}

func checkPIDs(n int64) error {
	if n < 0 || n > MaxPIDs {
		return fmt.Errorf("%w: pids %d is not between 1 and %d; 0 is no limit", ErrBadLimit, n, MaxPIDs)
	}
	return nil
}

func checkPercent(what string, n int64) error {
	if n < 0 || n > 100 {
		return fmt.Errorf("%w: %s %d%% is not between 1 and 100; 0 is none", ErrBadLimit, what, n)
	}
	return nil
}

func checkBytes(what string, n, least int64) error {
	switch {
	case n == 0:
		return nil
	case n < 0 || n > MaxBytes:
		return fmt.Errorf("%w: %s %d bytes is not between %d and %d; 0 is no limit", ErrBadLimit, what, n, least, int64(MaxBytes))
	case n < least:
		return fmt.Errorf("%w: %s %d bytes is less than %d MiB; if another unit was meant, write it: %dM",
			ErrBadLimit, what, n, least>>20, n)
	}
	return nil
}

func (l Limits) checkSwap() error {
	if l.SwapBytes == UnlimitedSwap {
		return nil
	}
	if err := checkBytes("swap", l.SwapBytes, MinSwapBytes); err != nil {
		return err
	}
	if l.SwapBytes > 0 && l.MemoryBytes == 0 {
		return fmt.Errorf("%w: swap %s counts beyond the memory limit, and there is none; set memory as well, or swap 0",
			ErrBadLimit, FormatBytes(l.SwapBytes))
	}
	if l.SwapBytes > MaxBytes-l.MemoryBytes { // v1 takes the sum
		return fmt.Errorf("%w: swap %s and memory %s together are more than 4 EiB; for any amount write swap unlimited",
			ErrBadLimit, FormatBytes(l.SwapBytes), FormatBytes(l.MemoryBytes))
	}
	return nil
}

// checkMemoryOrder refuses what could never take effect.
func (l Limits) checkMemoryOrder() error {
	above := func(what string, n int64, than string, most int64) error {
		if n > 0 && most > 0 && n > most {
			return fmt.Errorf("%w: %s %s is more than %s %s; lower the one or raise the other",
				ErrBadLimit, what, FormatBytes(n), than, FormatBytes(most))
		}
		return nil
	}
	return cmp.Or(
		above("memory-high", l.MemoryHighBytes, "memory", l.MemoryBytes),
		above("memory-min", l.MemoryMinBytes, "memory", l.MemoryBytes),
		above("memory-min", l.MemoryMinBytes, "memory-high", l.MemoryHighBytes),
	)
}

func checkIO(list []IOLimit) error {
	if len(list) > MaxIODevices {
		return fmt.Errorf("%w: io limits of %d devices; at most %d are possible", ErrBadLimit, len(list), MaxIODevices)
	}
	seen := map[string]bool{}
	for _, l := range list {
		switch {
		case seen[l.Device]:
			return fmt.Errorf("%w: io limits of %s are given twice", ErrBadLimit, l.Device)
		case l.unlimited():
			return fmt.Errorf("%w: the io limit of %s limits nothing; leave it out", ErrBadLimit, l.Device)
		}
		seen[l.Device] = true
		if err := l.validate(); err != nil {
			return err
		}
	}
	return nil
}

func (l IOLimit) validate() error {
	if err := checkDevice(l.Device); err != nil {
		return err
	}
	for _, n := range [...]int64{l.ReadBPS, l.WriteBPS} {
		if n != 0 && (n < MinIOBytes || n > MaxBytes) {
			return fmt.Errorf("%w: io of %s: %d bytes per second is not between %d and %d; 0 is no limit",
				ErrBadLimit, l.Device, n, MinIOBytes, int64(MaxBytes))
		}
	}
	for _, n := range [...]int64{l.ReadIOPS, l.WriteIOPS} {
		if n < 0 || n > MaxIOPS {
			return fmt.Errorf("%w: io of %s: %d iops is not between 1 and %d; 0 is no limit", ErrBadLimit, l.Device, n, int64(MaxIOPS))
		}
	}
	return nil
}

// checkDevice takes names as udev makes them; whether it is a disk is seen when
// it is applied.
func checkDevice(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_.:+@\\#"
	rest, ok := strings.CutPrefix(s, "/dev/")
	switch {
	case s == Pool:
		return nil
	case !ok || rest == "" || len(s) > 255 || strings.Trim(rest, allowed) != "" || strings.Contains(s, "/../") || strings.HasSuffix(s, "/.."):
		return badLimit("io device", s, "is neither a path in /dev nor the word pool", "write /dev/vda, or pool for the disk the container is on")
	}
	return nil
}
